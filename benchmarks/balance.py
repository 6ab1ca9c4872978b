"""What clusters of balanced labels buy on non-IID data: `python -m benchmarks.balance`.

Real training on the digits under a virtual clock: devices that hold two classes each, some slow
and some behind slow links, planned with growing weights of the balance of labels. Prints, over
some seeds, the accuracy after the last round, the rounds and simulated seconds to a target, and
the seconds of a round. A weight of 0 plans by seconds alone.
"""

import argparse
import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from edge_coordinator.job.file import load_job
from edge_coordinator.job.settings import JobSettings
from edge_coordinator.run.checkpoint import START, Reached
from edge_coordinator.simulation.prepare import prepare_simulation, settings_for
from edge_coordinator.training.edge_model import EdgeModel
from runtime.datasets.sources import load_source
from runtime.wire.published import RoundReport

WEIGHTS = (0.0, 0.3, 1.0, 3.0)
LAST_ROUNDS = 5
"""Accuracies are means over so many rounds."""


@dataclass
class NoProgress:
    """A run that begins at the beginning and is not written down."""

    reached: Reached = field(default=START)

    def return_to_sound(self, model: EdgeModel) -> int | None:
        """Nothing to go back to."""

    def save(self, model: EdgeModel, reached: Reached) -> None:
        """Keep nothing."""


def main() -> None:
    """Print a line for each weight."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scenario", default="mixed")
    parser.add_argument("--partition", default="classes:2")
    parser.add_argument("--target", type=float, default=0.9)
    arguments = parser.parse_args()
    print(f"{arguments.rounds} rounds, {arguments.seeds} seeds, target {arguments.target:.0%}")
    print(f"{'weight':>6} {'accuracy':>9} {'rounds':>7} {'seconds':>8} {'round, s':>9}")
    for weight in WEIGHTS:
        runs = [train(arguments, weight, seed) for seed in range(arguments.seeds)]
        print(show(weight, runs, target=arguments.target), flush=True)


def train(arguments: argparse.Namespace, weight: float, seed: int) -> list[RoundReport]:
    """One run; its rounds."""
    own: dict[str, object] = {
        "devices.count": 20,
        "devices.scenario": arguments.scenario,
        "plan.mode": "auto",
        "plan.cut": "pool1",
        "plan.clusters": 5,
        "plan.balance_weight": weight,
        "data.partition": arguments.partition,
        "training.rounds": arguments.rounds,
        "seed": seed,
    }

    def load(defaults: Mapping[str, object]) -> JobSettings:
        return load_job(None, {**defaults, **own})

    settings, scenario = settings_for(load, base_dir=Path.cwd(), from_file=False, say=print)
    data = load_source("digits", base_dir=Path.cwd())
    prepared = prepare_simulation(settings, scenario, data, run=seed, base_dir=Path.cwd())
    rounds = asyncio.run(prepared.simulation.run(observers=[], progress=NoProgress()))
    return [each.report for each in rounds]


def show(weight: float, runs: list[list[RoundReport]], *, target: float) -> str:
    """Means over the seeds; rounds and seconds of those that reached the target."""
    final = mean(mean(r.test_accuracy or 0.0 for r in run[-LAST_ROUNDS:]) for run in runs)
    reached = [next((r for r in run if (r.test_accuracy or 0.0) >= target), None) for run in runs]
    there = [report for report in reached if report is not None]
    rounds = f"{mean(r.round for r in there):.0f}" if len(there) == len(runs) else "not all"
    seconds = f"{mean(r.elapsed_s for r in there):.0f}" if len(there) == len(runs) else ""
    round_s = mean(r.round_s for run in runs for r in run)
    return f"{weight:6} {final:9.2%} {rounds:>7} {seconds:>8} {round_s:9.2f}"


if __name__ == "__main__":
    main()
