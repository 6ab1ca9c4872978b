"""What the default recipe ends at, by seed and processor: `python -m benchmarks.recipe --seeds 10`.

Trains the default job (as `cpsl simulate` does, so really) with every seed under every
`ATEN_CPU_CAPABILITY`, which makes PyTorch round as on other processors. Clusters are drawn anew in
each round, since what plans choose must not matter; `--plan by_hand` and `--plan auto` take those.
Holds, and exits with 0, if every run ends at 97 % or above and no round of its last ten is below
96 %.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.balance import NoProgress
from edge_coordinator.job.file import load_job
from edge_coordinator.job.settings import JobSettings
from edge_coordinator.simulation.prepare import prepare_simulation, settings_for
from runtime.datasets.sources import load_source
from runtime.service.arguments import parse_assignment

CAPABILITIES = ("default", "avx2", "avx512")
LEAST_END, LEAST_LATE = 0.97, 0.96
"""Of the last round, and of each of the last ten."""
NUM_LATE = 10
PLANS: Mapping[str, Mapping[str, object]] = {
    "random": {"plan.mode": "by_hand", "plan.grouping": "random"},
    "by_hand": {"plan.mode": "by_hand"},
    "auto": {"plan.mode": "auto"},
}


@dataclass(frozen=True)
class SeededRun:
    """How one run went."""

    capability: str
    seed: int
    accuracies: tuple[float, ...]
    """Of the last rounds, the last one last."""
    best: float

    @property
    def holds(self) -> bool:
        """Whether it ended as well as the recipe promises."""
        return self.accuracies[-1] >= LEAST_END and min(self.accuracies) >= LEAST_LATE


def main() -> int:
    """Print a line for each run as it ends, then the table and the verdict."""
    arguments = _arguments()
    if arguments.worker:
        for seed in range(arguments.seeds):
            print(json.dumps(train(arguments.plan, seed, arguments.set)), flush=True)
        return 0
    asked = load_job(None, dict(map(parse_assignment, arguments.set)))
    print(f"{asked.training.rounds} rounds, L = {asked.training.local_epochs}, {arguments.plan}")
    with ThreadPoolExecutor(arguments.workers) as pool:
        runs = list(pool.map(partial(run_seeds, arguments), arguments.capabilities))
    print(table([run for each in runs for run in each]))
    held = [run.holds for each in runs for run in each]
    verdict = "holds" if all(held) else "does NOT hold"
    print(
        f"{sum(held)} of {len(held)} runs end at {LEAST_END:.0%} or above with none of the last "
        f"{NUM_LATE} rounds below {LEAST_LATE:.0%}: the recipe {verdict}"
    )
    return 0 if all(held) else 1


def run_seeds(arguments: argparse.Namespace, capability: str) -> list[SeededRun]:
    """Train all seeds in a process that computes as with this capability."""
    runs = []
    for line in _lines(arguments, capability):
        runs.append(SeededRun(capability, line["seed"], tuple(line["accuracies"]), line["best"]))
        print(f"{capability}, seed {runs[-1].seed}: {runs[-1].accuracies[-1]:.2%}", flush=True)
    return runs


def train(plan: str, seed: int, assignments: Sequence[str]) -> dict[str, object]:
    """Train one run in this process; its last accuracies and its best."""
    given = dict(map(parse_assignment, assignments))
    own = {"devices.scenario": "mixed", "devices.count": 6, **PLANS[plan], **given, "seed": seed}

    def load(defaults: Mapping[str, object]) -> JobSettings:
        return load_job(None, own, defaults=defaults)

    settings, scenario = settings_for(load, base_dir=Path.cwd(), from_file=True, say=print)
    data = load_source(settings.data.source, base_dir=Path.cwd())
    prepared = prepare_simulation(settings, scenario, data, run=seed, base_dir=Path.cwd())
    rounds = asyncio.run(prepared.simulation.run(observers=[], progress=NoProgress()))
    accuracies = [each.report.test_accuracy or 0.0 for each in rounds]
    return {"seed": seed, "accuracies": accuracies[-NUM_LATE:], "best": max(accuracies)}


def table(runs: Sequence[SeededRun]) -> str:
    """A row for each run."""
    lines = [f"{'capability':>10} {'seed':>5} {'last':>8} {'worst of 10':>12} {'best':>8}"]
    for run in sorted(runs, key=lambda run: (run.seed, run.capability)):
        last, worst = run.accuracies[-1], min(run.accuracies)
        mark = "" if run.holds else "  below"
        lines.append(
            f"{run.capability:>10} {run.seed:>5} {last:>8.2%} {worst:>12.2%} {run.best:>8.2%}{mark}"
        )
    ends = [run.accuracies[-1] for run in runs]
    lates = [min(run.accuracies) for run in runs]
    lines.append(
        f"last round: {min(ends):.2%} to {max(ends):.2%}, mean {fmean(ends):.2%}; "
        f"worst of the last ten: {min(lates):.2%}"
    )
    return "\n".join(lines)


def _lines(arguments: argparse.Namespace, capability: str) -> Iterator[dict[str, Any]]:
    """Start the process, and read what it says of each run."""
    command = [sys.executable, "-m", "benchmarks.recipe", "--worker"]
    command += ["--seeds", str(arguments.seeds), "--plan", arguments.plan]
    command += [part for text in arguments.set for part in ("--set", text)]
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        yield from map(json.loads, process.stdout)
    if process.returncode:
        raise SystemExit(f"the runs with {capability} ended with code {process.returncode}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--capabilities", nargs="+", choices=CAPABILITIES, default=CAPABILITIES)
    parser.add_argument("--plan", choices=PLANS, default="random")
    parser.add_argument("--workers", type=int, default=1, help="processes at a time")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
