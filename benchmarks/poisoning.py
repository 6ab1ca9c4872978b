"""One attacker of six: rounds to the target, beside an undisturbed run: `-m benchmarks.poisoning`.

Real agents and a real coordinator in this process, on a bus of memory: the digits dealt evenly to
six devices in one cluster, so that an aggregation has six models to choose from. A run holds if the
test accuracy reaches the target within 1.2 times the rounds of the undisturbed run with the mean.
`--bounds off` says what the aggregations do by themselves.
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from math import inf
from pathlib import Path
from typing import get_args

from benchmarks.poisoned_devices import ATTACKS, Attack, Told, train
from edge_coordinator.training.aggregation import AggregationName
from runtime.datasets.sources import load_source

NUM_DEVICES = 6
ATTACKER = "dev-2"
TARGET = 0.92
LIMIT = 1.2
NUM_ROUNDS = 50
AGGREGATIONS: tuple[AggregationName, ...] = get_args(AggregationName)
UNDISTURBED = "nobody attacks"


def main() -> int:
    """Print a row for each attack as it ends, then the verdict."""
    arguments = _arguments()
    names = [UNDISTURBED, *(arguments.attacks or ATTACKS)]
    print(f"{arguments.partition}, seed {arguments.seed}, bounds {arguments.bounds}; rounds to")
    print(f"{TARGET:.0%}, a star where that is more than {LIMIT} times those of the first row")
    print(f"{'':24}" + "".join(f"{name:>13}" for name in AGGREGATIONS))
    with ProcessPoolExecutor(arguments.workers) as pool:
        run = partial(rounds_to_target, vars(arguments))
        grid = [(attack, aggregation) for attack in names for aggregation in AGGREGATIONS]
        results = list(pool.map(run, grid))
    found = dict(zip(grid, results, strict=True))
    least = found[UNDISTURBED, "mean"][0]
    for attack in names:
        cells = [_cell(*found[attack, aggregation], least) for aggregation in AGGREGATIONS]
        print(f"{attack:24}" + "".join(f"{cell:>13}" for cell in cells))
    num_held = sum(rounds <= LIMIT * least for rounds, _ in results)
    print("(x): the attacker was excluded at least once")
    print(f"{num_held} of {len(results)} runs hold")
    return 0


def rounds_to_target(
    arguments: Mapping[str, object], case: tuple[str, AggregationName]
) -> tuple[float, bool]:
    """Train one run; rounds to the target, infinity if it was not reached, and who was caught."""
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
    told = asyncio.run(
        train(
            load_source("digits", base_dir=Path()),
            settings,
            num_devices=NUM_DEVICES,
            attack=ATTACKS.get(attack, Attack()),
            attackers=[ATTACKER],
        )
    )
    return _rounds(told), ATTACKER in told.excluded


def _rounds(told: Told) -> float:
    reached = (report.round for report in told.rounds if (report.test_accuracy or 0.0) >= TARGET)
    return next(reached, inf)


def _cell(rounds: float, is_excluded: bool, least: float) -> str:  # noqa: FBT001
    number = "never" if rounds == inf else f"{rounds:.0f}"
    return f"{'(x) ' if is_excluded else ''}{number}{' ' if rounds <= LIMIT * least else '*'}"


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
