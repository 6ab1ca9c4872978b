"""What runs, simulations and comparisons do in their thread."""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch
from rich.console import Console

from edge_coordinator.api.background import Stoppable
from edge_coordinator.api.job import Job
from edge_coordinator.api.results import Comparison, Run
from edge_coordinator.job.job import Job as PreparedJob
from edge_coordinator.job.prepare import prepare_job
from edge_coordinator.job.settings import device_names
from edge_coordinator.local.run import run_local
from edge_coordinator.local.site import LocalSite
from edge_coordinator.planning.form import Method
from edge_coordinator.run.directory import RunDirectory
from edge_coordinator.run.events import Observer
from edge_coordinator.run.folder import (
    Clock,
    check_clock,
    clock_of,
    forget_run_folder,
    make_run_folder,
    write_job,
)
from edge_coordinator.run.outcome import finish
from edge_coordinator.run.temporary import temporary_files_near
from edge_coordinator.simulation.prepare import SCENARIO_OF_JOB, prepare_simulation, read_scenario
from edge_coordinator.training.edge_model import EdgeModel
from profiles.scenario import Scenario
from profiles.variation import Spread
from runtime.datasets.sources import load_source
from runtime.errors import EdgeError, root_cause
from runtime.service.process import prompt_collection

Training = Coroutine[None, None, None]
Observers = Sequence[Observer]


def train_here(job: Job, told: Observers, resume: Path | None, stoppable: Stoppable) -> Run:
    """Train with a broker and agents of this machine."""
    if resume is not None:
        check_clock(resume, clock_of(resume), own="wall")
    path = resume or make_run_folder(job, now=datetime.now().astimezone())
    with (
        temporary_files_near(path.parent),
        _threads_as_before(),
        LocalSite(job, base_dir=Path.cwd(), log_dir=path) as site,
    ):
        try:
            prepared, model = _prepared(job)
        except BaseException:
            if resume is None:
                forget_run_folder(path)
            raise
        write_job(path, prepared.settings)
        directory = _directory(path, prepared, model, clock="wall", is_new=resume is None)

        def training() -> Training:
            return stoppable.watched(
                run_local(
                    site,
                    prepared,
                    model,
                    say=lambda *_: None,
                    directory=directory,
                    observers=[directory, *told],
                )
            )

        return _trained(directory, prepared, model, training, site.run)


def train_in_process(job: Job, told: Observers, resume: Path | None, stoppable: Stoppable) -> Run:
    """Simulate."""
    job, scenario = _with_scenario(job)
    data = load_source(job.data.source, base_dir=Path.cwd())
    run, now = secrets.randbits(64), datetime.now().astimezone()
    ready = prepare_simulation(job, scenario, data, run=run, base_dir=Path.cwd())
    path = resume or make_run_folder(ready.job.settings, now=now)
    with temporary_files_near(path.parent), _threads_as_before():
        directory = _directory(path, ready.job, ready.model, clock="virtual", is_new=not resume)

        def training() -> Training:
            observers = [directory, *told]
            return stoppable.watched(ready.simulation.run(observers=observers, progress=directory))

        return _trained(directory, ready.job, ready.model, training, asyncio.run)


@dataclass(frozen=True)
class WantedComparison:
    """Which methods, and how much of each."""

    methods: Sequence[Method]
    seeds: int
    workers: int
    draws: int


def compare_methods(job: Job, wanted: WantedComparison, stoppable: Stoppable) -> Comparison:
    """Compare; it cannot be stopped half-way."""
    del stoppable
    job, scenario = _with_scenario(job)
    with temporary_files_near(job.output):  # Plots want a place before they are imported.
        from edge_coordinator.experiments.compare import ComparisonTask, compare  # noqa: PLC0415
        from edge_coordinator.experiments.workers import Effort  # noqa: PLC0415

        effort = Effort(
            num_seeds=wanted.seeds, workers=wanted.workers, executor=None, draws=wanted.draws
        )
        task = ComparisonTask(
            methods=wanted.methods,
            settings=job,
            scenario=scenario,
            effort=effort,
            rates="given",
            base_dir=Path.cwd(),
        )
        with _one_error():
            return Comparison(compare(task, Console(quiet=True)))


def _prepared(job: Job) -> tuple[PreparedJob, EdgeModel]:
    data = load_source(job.data.source, base_dir=Path.cwd())
    run = secrets.randbits(64)
    prepared, model = prepare_job(job, run=run, base_dir=Path.cwd(), data=data)
    prepared.check_devices(names := device_names(job.devices.count))
    prepared.check_named(names)
    return prepared, model


def _directory(
    path: Path, job: PreparedJob, model: EdgeModel, *, clock: Clock, is_new: bool
) -> RunDirectory:
    rules = job.settings.evaluation
    if is_new:
        return RunDirectory(path, clock=clock, rules=rules)
    directory = RunDirectory.resume(path, model, clock=clock, rules=rules)
    write_job(path, job.settings)
    return directory


def _with_scenario(job: Job) -> tuple[Job, Scenario]:
    reference = job.devices.scenario or SCENARIO_OF_JOB
    scenario = read_scenario(reference, base_dir=Path.cwd())
    if (spread := job.devices.spread) is not None:
        scenario = scenario.model_copy(update={"spread": Spread.between_rounds(spread)})
    return job.but({"devices.scenario": reference}), scenario


def _trained(
    directory: RunDirectory,
    job: PreparedJob,
    model: EdgeModel,
    training: Callable[[], Training],
    run: Callable[[Training], None],
) -> Run:
    """Train what is left, and write down what came of it, also if it is interrupted."""
    if not (ended := _why_over(directory, job)):
        try:
            with prompt_collection(), _one_error():
                run(training())
        except BaseException:
            with suppress(EdgeError, OSError):  # The first reason stays the reason.
                directory.go_back(model)
                if directory.reports:
                    finish(directory, job, model, ended="")
            raise
        ended = _why_over(directory, job)
    _, results = finish(directory, job, model, ended=ended)
    results.check_written()
    return Run(directory.path)


def _why_over(directory: RunDirectory, job: PreparedJob) -> str:
    if not directory.reports:
        return ""
    return job.why_over(directory.reports[-1], directory.reached.standing)


@contextmanager
def _one_error() -> Iterator[None]:
    """Raise what was wrong in the first place, not a group of tasks that it ended."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise root_cause(group) from group


@contextmanager
def _threads_as_before() -> Iterator[None]:
    """Leave torch with the threads that whoever called it had."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
