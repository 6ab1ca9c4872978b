"""Run, simulate and compare; each also as an awaitable.

Whatever trains does so in a thread and with an event loop of its own, so all of these work where a
loop runs already, as in a notebook. Whoever is told of progress is told in that thread.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from edge_coordinator.api.background import Work, awaited, wait_for
from edge_coordinator.api.job import Job
from edge_coordinator.api.results import Comparison, Run
from edge_coordinator.api.work import (
    WantedComparison,
    compare_methods,
    train_here,
    train_in_process,
)
from edge_coordinator.job.settings import own_code
from edge_coordinator.planning.form import Method
from edge_coordinator.run.events import Observer, Progress
from runtime.errors import SettingsError
from runtime.plugins import check_not_imported

OnProgress = Callable[[Progress], None]
"""Told of each plan, turn and round; an error that it raises ends the run."""
Observers = Sequence[Observer]
DRAWS = 100


def run_local(
    job: Job,
    *,
    on_progress: OnProgress | None = None,
    observers: Observers = (),
    resume: Path | None = None,
) -> Run:
    """Train on devices of this machine: real processes and a real broker, as `cpsl local` does.

    `observers` are told as `on_progress` is. An interrupt leaves a run to go on with: `resume` is
    its directory, the job what is to hold from there on. SettingsError, and other EdgeErrors, say
    what the command would.
    """
    return wait_for(_local(job, on_progress, observers, resume))


async def run_local_async(
    job: Job,
    *,
    on_progress: OnProgress | None = None,
    observers: Observers = (),
    resume: Path | None = None,
) -> Run:
    """Do the same while the loop goes on; cancelling it is an interrupt."""
    return await awaited(_local(job, on_progress, observers, resume))


def simulate(
    job: Job,
    *,
    on_progress: OnProgress | None = None,
    observers: Observers = (),
    resume: Path | None = None,
) -> Run:
    """Train the same in this process, under a virtual clock, as `cpsl simulate` does.

    The scenario is `devices.scenario`, or else uniform.
    """
    return wait_for(_simulation(job, on_progress, observers, resume))


async def simulate_async(
    job: Job,
    *,
    on_progress: OnProgress | None = None,
    observers: Observers = (),
    resume: Path | None = None,
) -> Run:
    """Do the same while the loop goes on; cancelling it is an interrupt."""
    return await awaited(_simulation(job, on_progress, observers, resume))


def compare(
    job: Job,
    methods: Sequence[Method] = ("cpsl", "sl", "fl"),
    *,
    seeds: int = 1,
    workers: int = 1,
    draws: int = DRAWS,
) -> Comparison:
    """Train a job by several methods on one scenario, as `cpsl compare` does.

    The `workers` are processes, which import the script that calls this: there it has to stand
    below `if __name__ == "__main__":`. `draws` are of the devices' states.
    """
    check_not_imported("compare")
    return wait_for(partial(compare_methods, job, WantedComparison(methods, seeds, workers, draws)))


async def compare_async(
    job: Job,
    methods: Sequence[Method] = ("cpsl", "sl", "fl"),
    *,
    seeds: int = 1,
    workers: int = 1,
    draws: int = DRAWS,
) -> Comparison:
    """Do the same while the loop goes on; cancelling it waits for its end."""
    return await awaited(
        partial(compare_methods, job, WantedComparison(methods, seeds, workers, draws))
    )


class _Told:
    """An observer that passes on what it is told."""

    def __init__(self, on_progress: OnProgress) -> None:
        self.tell = on_progress


def _local(
    job: Job, on_progress: OnProgress | None, observers: Observers, resume: Path | None
) -> Work[Run]:
    check_not_imported("run_local")
    for name in own_code(job):
        if name.startswith("__main__:"):
            raise SettingsError(
                f"{name.removeprefix('__main__:')} is defined in what runs here, where other "
                "processes do not find it: put it into a file.py of the working folder, or simulate"
            )
    return partial(train_here, job, _told(on_progress, observers), resume)


def _simulation(
    job: Job, on_progress: OnProgress | None, observers: Observers, resume: Path | None
) -> Work[Run]:
    check_not_imported("simulate")
    return partial(train_in_process, job, _told(on_progress, observers), resume)


def _told(on_progress: OnProgress | None, observers: Observers) -> Observers:
    return [*observers, *([_Told(on_progress)] if on_progress else [])]
