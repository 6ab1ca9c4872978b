"""All runs of a comparison, side by side, each in a process of its own."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge_coordinator.experiments.results import Runs, TrainedRun
from edge_coordinator.experiments.runs import RunSpec, train_one
from runtime.errors import EdgeError, WorkerError

OnRound = Callable[[int, int], None]
"""Told the number of a run and of the round that it has done."""


def train_all(
    specs: Sequence[RunSpec], *, base_dir: Path, workers: int, on_round: OnRound
) -> list[TrainedRun]:
    """Train every run, so many at a time; in the order of `specs`.

    The first run that fails stops the rest; its error says which it was.
    """
    results: dict[int, TrainedRun] = {}
    waiting = list(enumerate(specs))
    with _pool(min(workers, len(specs)), base_dir) as pipes:
        idle = list(pipes)
        while len(results) < len(specs):
            while idle and waiting:
                idle.pop().send(waiting.pop(0))
            for pipe in wait(pipes):
                assert isinstance(pipe, Connection)
                number, said = _received(pipe)
                match said:
                    case int():
                        on_round(number, said)
                    case TrainedRun():
                        results[number] = said
                        idle.append(pipe)
                    case _:
                        raise WorkerError(f"{specs[number].name}: {said}")
    return [results[number] for number in range(len(specs))]


def _received(pipe: Connection) -> tuple[int, object]:
    try:
        number, said = pipe.recv()
    except EOFError as error:
        raise WorkerError(
            "a process that trained has died; is there enough memory, or does it say why above?"
        ) from error
    return int(number), said


@contextmanager
def _pool(size: int, base_dir: Path) -> Iterator[list[Connection]]:
    context: SpawnContext = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes: list[SpawnProcess] = []
    try:
        for _ in range(size):
            own, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, base_dir), daemon=True)
            process.start()
            theirs.close()
            pipes.append(own)
            processes.append(process)
        yield pipes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _work(pipe: Connection, base_dir: Path) -> None:
    """Train whatever is asked for until this process is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear.
    while True:
        try:
            number, spec = pipe.recv()
        except EOFError:
            return
        try:
            said: object = train_one(
                spec, base_dir=base_dir, on_round=partial(_tell_round, pipe, number)
            )
        except EdgeError as error:
            said = str(error)
        pipe.send((number, said))


def _tell_round(pipe: Connection, number: int, round_: int) -> None:
    pipe.send((number, round_))


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
