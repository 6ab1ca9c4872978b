"""All runs of a comparison under a progress bar: variants times seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge_coordinator.comparison.one_run import RunSpec
from edge_coordinator.comparison.results import Runs
from edge_coordinator.comparison.workers import train_all


@dataclass(frozen=True)
class Effort:
    """How much a comparison computes, and how much of it side by side."""

    num_seeds: int
    workers: int
    """Processes that train."""
    draws: int
    """Of the devices' states, wherever they vary."""


def progress_bar(console: Console) -> Progress:
    """Show how far something is; on anything but a terminal only its end is shown."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
    )


def with_seeds(specs: Sequence[RunSpec], seeds: Sequence[int]) -> list[RunSpec]:
    """Repeat every variant with each seed."""
    return [
        replace(spec, settings=spec.settings.model_copy(update={"seed": seed}))
        for seed in seeds
        for spec in specs
    ]


def train_variants(
    specs: Sequence[RunSpec], *, seeds: Sequence[int], base_dir: Path, workers: int, bar: Progress
) -> Runs:
    """Train every variant with every seed: label to its runs, in the order of the seeds."""
    every = with_seeds(specs, seeds)
    done = [0] * len(every)
    total = sum(spec.settings.training.rounds for spec in every)
    task = bar.add_task(f"{len(every)} runs, rounds", total=total)

    def on_round(number: int, round_: int) -> None:
        done[number] = round_
        bar.update(task, completed=sum(done))
        if round_ == every[number].settings.training.rounds and not bar.console.is_terminal:
            bar.console.print(
                f"trained {every[number].name}: {sum(done)} of {total} rounds are done"
            )

    trained = train_all(every, base_dir=base_dir, workers=workers, on_round=on_round)
    return {spec.label: [run for run in trained if run.label == spec.label] for spec in specs}
