"""All runs of a comparison, side by side, each in a process of its own."""

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, BrokenExecutor, Future, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge_coordinator.experiments.executors import open_executor, tell_round
from edge_coordinator.experiments.results import Runs, TrainedRun
from edge_coordinator.experiments.runs import RunSpec, train_one
from runtime.errors import EdgeError, WorkerError

OnRound = Callable[[int, int], None]
"""Told the number of a run and of the round that it has done."""
LOOK_EVERY_S = 0.2
"""How often those who train are asked how far they are."""

_alone = threading.Lock()


def train_all(
    specs: Sequence[RunSpec],
    *,
    base_dir: Path,
    workers: int,
    executor: str | None,
    on_round: OnRound,
) -> list[TrainedRun]:
    """Train every run, so many at a time here, or on another `executor`; in the order of `specs`.

    The first run that fails stops the rest; its error says which it was.
    """
    rounds = multiprocessing.get_context("spawn").SimpleQueue()
    with open_executor(executor, workers=min(workers, len(specs)), rounds=rounds) as pool:
        train = partial(_train, base_dir=base_dir, num_threads=torch.get_num_threads())
        futures = [pool.submit(train, number, spec) for number, spec in enumerate(specs)]
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=LOOK_EVERY_S, return_when=FIRST_EXCEPTION)
            while not rounds.empty():
                on_round(*rounds.get())
            for number in sorted(map(futures.index, done)):
                on_round(number, _result(futures[number], specs[number]).rounds[-1].round)
        return [_result(*pair) for pair in zip(futures, specs, strict=True)]


def _result(future: Future[TrainedRun], spec: RunSpec) -> TrainedRun:
    try:
        return future.result()
    except BrokenExecutor as error:
        raise WorkerError(
            "a process that trained has died; is there enough memory, or does it say why above?"
        ) from error
    except EdgeError as error:
        raise WorkerError(f"{spec.name}: {error}") from error


def _train(number: int, spec: RunSpec, *, base_dir: Path, num_threads: int) -> TrainedRun:
    """Train in a process that others may have set up: alone in it, and by as many threads.

    Torch's random generator is one a process, and another number of threads sums otherwise.
    """
    with _alone:
        torch.set_num_threads(num_threads)
        return train_one(spec, base_dir=base_dir, on_round=partial(tell_round, number))


@dataclass(frozen=True)
class Effort:
    """How much a comparison computes, and how much of it side by side."""

    num_seeds: int
    workers: int
    """Processes that train."""
    executor: str | None
    """Where else it is trained, if not here: `dask://HOST:PORT`."""
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
    specs: Sequence[RunSpec],
    *,
    seeds: Sequence[int],
    base_dir: Path,
    effort: Effort,
    bar: Progress,
) -> Runs:
    """Train every variant with every seed: label to its runs, in the order of the seeds."""
    every = with_seeds(specs, seeds)
    done = [0] * len(every)
    total = sum(spec.settings.training.rounds for spec in every)
    task = bar.add_task(f"{len(every)} runs, rounds", total=total)

    def on_round(number: int, round_: int) -> None:
        if round_ <= done[number]:
            return
        done[number] = round_
        bar.update(task, completed=sum(done))
        if round_ == every[number].settings.training.rounds and not bar.console.is_terminal:
            bar.console.print(
                f"trained {every[number].name}: {sum(done)} of {total} rounds are done"
            )

    trained = train_all(
        every,
        base_dir=base_dir,
        workers=effort.workers,
        executor=effort.executor,
        on_round=on_round,
    )
    return {spec.label: [run for run in trained if run.label == spec.label] for spec in specs}
