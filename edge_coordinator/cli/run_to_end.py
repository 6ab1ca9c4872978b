"""Train until the end or until told to end, then write down what there is to write."""

import asyncio
import shlex
import signal
from collections.abc import Callable, Coroutine, Sequence

from edge_coordinator.cli.output import Output
from edge_coordinator.cli.run_events import EventLines
from edge_coordinator.cli.run_view import RunView
from edge_coordinator.job.job import Job
from edge_coordinator.job.settings import code_flags
from edge_coordinator.run.directory import RunDirectory
from edge_coordinator.run.events import Observer
from edge_coordinator.run.faults import traces_in
from edge_coordinator.run.outcome import finish
from edge_coordinator.run.results import Results
from edge_coordinator.run.temporary import temporary_files_near
from edge_coordinator.run.trackers.tracker import flat_settings, tracked
from edge_coordinator.training.edge_model import EdgeModel
from runtime.errors import EdgeError
from runtime.event_loop import call_on_signals
from runtime.service.process import prompt_collection

TRACES = "faults.log"
"""In the run's directory: where in the program something went wrong that the run went on from."""

Train = Callable[[Sequence[Observer]], Coroutine[None, None, None]]
Run = Callable[[Coroutine[None, None, None]], None]


async def until_terminated(training: Coroutine[None, None, None]) -> None:
    """Train until done; CancelledError if told to end meanwhile."""
    task = asyncio.current_task()
    assert task is not None
    call_on_signals([signal.SIGTERM], task.cancel)
    await training


def run_to_end(
    console: Output,
    job: Job,
    model: EdgeModel,
    directory: RunDirectory,
    train: Train,
    *,
    run: Run = asyncio.run,
    trackers: Sequence[str] = (),
) -> None:
    """Train under the eyes of a person and of the run directory; `run` has the event loop.

    `trackers` are names of tools that keep the run's figures as well.
    """
    console.event("run", {"directory": str(directory.path)})
    with (
        temporary_files_near(directory.path.parent),
        tracked(trackers, directory.path, flat_settings(job.settings)) as observers,
    ):
        _train_and_finish(console, job, model, directory, train, run=run, more=observers)


def _train_and_finish(
    console: Output,
    job: Job,
    model: EdgeModel,
    directory: RunDirectory,
    train: Train,
    *,
    run: Run,
    more: Sequence[Observer],
) -> None:
    if ended := _why_over(directory, job):
        console.print(f"{ended}; to train on, give a larger limit, as by --rounds")
        _finish(console, directory, job, model, ended=ended)
        return
    try:
        with RunView(console) as view, prompt_collection(), traces_in(directory.path / TRACES):
            shown: Observer = EventLines(console) if console.is_json else view
            run(until_terminated(train([shown, directory, *more])))
    except BaseException:
        _finish_early(console, directory, job, model)
        raise
    ended = directory.stopped or _why_over(directory, job)
    _finish(console, directory, job, model, ended=ended)


def _why_over(directory: RunDirectory, job: Job) -> str:
    if not directory.reports:
        return ""
    return job.why_over(directory.reports[-1], directory.reached.standing)


def _finish_early(console: Output, directory: RunDirectory, job: Job, model: EdgeModel) -> None:
    """Write down what the last round left; if that fails too, the first reason stays the reason."""
    try:
        directory.go_back(model)
        _finish(console, directory, job, model, ended="")
    except (EdgeError, OSError) as error:
        console.print(str(error), soft_wrap=True, markup=False)


def _finish(
    console: Output, directory: RunDirectory, job: Job, model: EdgeModel, *, ended: str
) -> None:
    """Write the model and the curves, and say where they are; `ended` is empty if it may go on."""
    if not directory.reports:
        if not directory.discard_if_empty():
            console.print(f"no round was finished; the settings and logs are in {directory.path}")
        console.event("result", {"directory": str(directory.path), "rounds": 0})
        return
    with console.status("writing the model and the curves"):
        lines, results = finish(directory, job, model, ended=ended)
    words = [_what_was_done(directory, job, ended=ended), *lines, *results.missing]
    if not ended or directory.stopped:
        flags = ["--resume", str(directory.path), *code_flags(job.settings)]
        words.append(f"to go on, give {shlex.join(flags)}")
    if console.form == "quiet":
        words = [str(directory.path)]
    console.answer(_result_of(directory, results, ended=ended), *words)
    results.check_written()


def _what_was_done(directory: RunDirectory, job: Job, *, ended: str) -> str:
    last = directory.reports[-1]
    state = "trained" if ended and not directory.stopped else "stopped after"
    simulated = "simulated " if directory.clock == "virtual" else ""
    early = f", {ended}" if ended and last.round < job.num_rounds else ""
    return (
        f"{state} {last.round} rounds in {last.elapsed_s:.1f} {simulated}s{early}: "
        f"results in {directory.path}"
    )


def _result_of(directory: RunDirectory, results: Results, *, ended: str) -> dict[str, object]:
    """Give the last event of a run, for programs; `result.json` in its directory says more."""
    last = directory.reports[-1]
    return {
        "event": "result",
        "directory": str(directory.path),
        "ended": ended or "interrupted",
        "rounds": last.round,
        "elapsed_s": last.elapsed_s,
        "test_loss": last.test_loss,
        "metric": last.metric or None,
        "test_metric": last.test_metric,
        "missing": results.missing,
    }
