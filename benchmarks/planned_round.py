"""What planning gains on emulated devices: `python -m benchmarks.planned_round mixed uniform`.

For each scenario it trains with planned clusters and with random ones that divide a link evenly,
in turns, by the command that a user would give, and compares the seconds of a round. The cut is
the planner's in both. A round counts from the second on: the first loads and compiles. Prints
also how far predictions were off.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import mean, median
from typing import Any

GROUPINGS = ("planned", "random")


@dataclass(frozen=True)
class GroupedRun:
    """Rounds of one run."""

    rounds: list[dict[str, Any]]

    @property
    def seconds(self) -> list[float]:
        """Seconds of every round but the first."""
        return [line["round_s"] for line in self.rounds[1:]]

    @property
    def errors(self) -> list[float]:
        """Size of each round's relative error of prediction."""
        return [abs(line["relative_error"]) for line in self.rounds]


def main() -> None:
    """Print a table: a line for each scenario."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="+", help="uniform, mixed, one-straggler, or files")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=2, help="runs of each kind, in turns")
    parser.add_argument("--devices", type=int, default=6)
    parser.add_argument("--clusters", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    print(
        f"{arguments.devices} devices, {arguments.clusters} clusters, "
        f"{arguments.rounds} rounds, {arguments.repeats} runs of each kind"
    )
    print_row("scenario", "planned", "random", "gain", "error, 1st", "4th and on")
    for scenario in arguments.scenarios:
        print_scenario(scenario, arguments)


def print_scenario(scenario: str, arguments: argparse.Namespace) -> None:
    """Train in turns; print medians of the seconds of a round, and of the errors."""
    runs: dict[str, list[GroupedRun]] = {grouping: [] for grouping in GROUPINGS}
    for repeat in range(arguments.repeats):
        for grouping in GROUPINGS:
            runs[grouping].append(train(scenario, grouping, arguments, seed=repeat))
    planned_s, random_s = (
        mean(chain.from_iterable(run.seconds for run in runs[grouping])) for grouping in GROUPINGS
    )
    print_row(
        scenario,
        f"{planned_s:.3f} s",
        f"{random_s:.3f} s",
        f"{1 - planned_s / random_s:+.1%}",
        f"{median(run.errors[0] for run in runs['planned']):.1%}",
        f"{median(chain.from_iterable(run.errors[3:] for run in runs['planned'])):.1%}",
    )


def train(scenario: str, grouping: str, arguments: argparse.Namespace, *, seed: int) -> GroupedRun:
    """Train by the command line; the rounds that it wrote down."""
    settings = [
        "plan.mode=auto",
        f"plan.grouping={grouping}",
        f"plan.shares={'allocated' if grouping == 'planned' else 'equal'}",
        *arguments.set,
    ]
    with tempfile.TemporaryDirectory() as output:
        command = [
            sys.executable, "-m", "edge_coordinator", "local",
            "--scenario", scenario,
            "--devices", str(arguments.devices),
            "--clusters", str(arguments.clusters),
            "--rounds", str(arguments.rounds),
            "--seed", str(seed),
            "--output", output,
            *chain.from_iterable(("--set", each) for each in settings),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        (lines,) = Path(output).glob("*/rounds.jsonl")
        return GroupedRun(
            [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
        )


def print_row(first: str, *others: str) -> None:
    """Print one line of the table, eighty columns wide; a long name stands on its own."""
    if len(first) > 15:
        first = f"{first}\n{'':15}"
    print(f"{first:15}" + "".join(f" {cell:>12}" for cell in others), flush=True)


if __name__ == "__main__":
    main()
