"""One attacker of six: rounds to the target, beside an undisturbed run: `-m benchmarks.poisoning`.

Real agents and a real coordinator in this process, on a bus of memory: the digits dealt evenly to
six devices in one cluster, so that an aggregation has six models to choose from. A run holds if the
test accuracy reaches the target within 1.2 times the rounds of the undisturbed run with the same
aggregation. `--bounds off` says what the aggregations do by themselves.
"""

import argparse
import asyncio
import contextlib
import logging
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import get_args

from benchmarks.poisoning.poisoned_devices import ATTACKS, Attack, Told, train
from edge_coordinator.training.aggregation_name import AggregationName
from runtime.datasets.sources import load_source
from runtime.errors import EdgeError, root_cause

NUM_DEVICES = 6
ATTACKER = "dev-2"
TARGET = 0.92
LIMIT = 1.2
NUM_ROUNDS = 50
AGGREGATIONS: tuple[AggregationName, ...] = get_args(AggregationName)
UNDISTURBED = "nobody attacks"
ABSENT = "the attacker is not there"
"""The best that an exclusion can do: its data are missing as well."""


@dataclass(frozen=True)
class Outcome:
    """How one run went."""

    rounds: float
    """To the target; infinity if it was not reached."""
    is_excluded: bool = False
    """Whether the attacker was, at least once."""
    is_lost: bool = False
    """Whether the run ended early, with a model that computes nothing any more."""

    def holds(self, undisturbed: "Outcome") -> bool:
        """Whether it came to the target soon enough."""
        return self.rounds < inf and self.rounds <= LIMIT * undisturbed.rounds

    def cell(self, undisturbed: "Outcome") -> str:
        """Say it in at most 12 letters."""
        reached = f"{self.rounds:.0f}" if self.rounds < inf else "never"
        mark = " " if self.holds(undisturbed) else "*"
        return f"{'(x) ' if self.is_excluded else ''}{'lost' if self.is_lost else reached}{mark}"


def main() -> int:
    """Print a row for each attack as it ends, then the verdict."""
    arguments = _arguments()
    names = [UNDISTURBED, ABSENT, *(arguments.attacks or ATTACKS)]
    print(
        f"{arguments.partition}, {arguments.clusters} cluster(s), seed {arguments.seed}, bounds "
        f"{arguments.bounds}: rounds to {TARGET:.0%}"
    )
    print(f"{'':25}" + "".join(f"{name:>13}" for name in AGGREGATIONS), flush=True)
    grid = [(attack, aggregation) for attack in names for aggregation in AGGREGATIONS]
    found: dict[tuple[str, AggregationName], Outcome] = {}
    with ProcessPoolExecutor(arguments.workers) as pool:
        results = pool.map(partial(run_one, vars(arguments)), grid)
        for attack in names:
            found |= {(attack, aggregation): next(results) for aggregation in AGGREGATIONS}
            cells = [found[attack, each].cell(found[UNDISTURBED, each]) for each in AGGREGATIONS]
            print(f"{attack:25}" + "".join(f"{cell:>13}" for cell in cells), flush=True)
    held = [each.holds(found[UNDISTURBED, of[1]]) for of, each in found.items()]
    print(f"(x): the attacker was excluded; *: more than {LIMIT} times the first row")
    print(f"{sum(held)} of {len(held)} runs hold")
    return 0


def run_one(arguments: Mapping[str, object], case: tuple[str, AggregationName]) -> Outcome:
    """Train one run."""
    logging.disable(logging.WARNING)
    attack, aggregation = case
    settings = {
        "data.partition": arguments["partition"],
        "seed": arguments["seed"],
        "devices.bounds": arguments["bounds"] == "on",
        "plan.clusters": arguments["clusters"],
        "training.rounds": arguments["rounds"],
        "training.aggregation": aggregation,
        "evaluation.target_accuracy": TARGET,
    }
    training = train(
        load_source("digits", base_dir=Path()),
        settings,
        num_devices=NUM_DEVICES,
        attack=ATTACKS.get(attack, Attack()),
        attackers=[ATTACKER],
        absent=[ATTACKER] if attack == ABSENT else [],
    )
    outcome = Outcome(inf, is_lost=True)
    with contextlib.suppress(EdgeError):
        try:
            told = asyncio.run(training)
            outcome = Outcome(_rounds(told), is_excluded=ATTACKER in told.excluded)
        except ExceptionGroup as error:
            raise root_cause(error) from error
    return outcome


def _rounds(told: Told) -> float:
    reached = (report.round for report in told.rounds if (report.test_accuracy or 0.0) >= TARGET)
    return next(reached, inf)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, metavar="NAME")
    parser.add_argument("--bounds", choices=("on", "off"), default="on")
    parser.add_argument("--partition", default="iid")
    parser.add_argument("--clusters", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=NUM_ROUNDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes at a time")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
