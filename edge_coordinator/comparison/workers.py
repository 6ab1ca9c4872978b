"""Runs side by side, each in a process of its own, with their progress as they go."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path

from edge_coordinator.comparison.one_run import RunSpec, train_one
from edge_coordinator.comparison.results import TrainedRun
from runtime.errors import EdgeError, SettingsError

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
                        raise SettingsError(f"{specs[number].name}: {said}")
    return [results[number] for number in range(len(specs))]


def _received(pipe: Connection) -> tuple[int, object]:
    try:
        number, said = pipe.recv()
    except EOFError as error:
        raise EdgeError(
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
