"""Train, then write down what there is to write, however it ended."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence

from rich.console import Console

from edge_coordinator.console import RunView
from edge_coordinator.faults import traces_in
from edge_coordinator.job import Job
from edge_coordinator.progress import Observer
from edge_coordinator.record import RunDirectory
from edge_coordinator.termination import until_terminated
from edge_coordinator.training.edge_model import EdgeModel
from runtime.allocator import prompt_collection
from runtime.errors import SettingsError

TRACES = "faults.log"
"""In the run's directory: where in the program something went wrong that the run went on from."""

Train = Callable[[Sequence[Observer]], Coroutine[None, None, None]]


def run_to_end(
    console: Console, job: Job, model: EdgeModel, directory: RunDirectory, train: Train
) -> None:
    """Train under the eyes of a person and of the run directory."""
    if directory.reports and job.is_over(directory.reports[-1]):
        rounds = directory.reached.round
        console.print(f"all {rounds} rounds are done; to train on, give a larger --rounds")
        _finish(console, directory, job, model, complete=True)
        return
    try:
        with RunView(console) as view, prompt_collection(), traces_in(directory.path / TRACES):
            asyncio.run(until_terminated(train([view, directory])))
    except BaseException:
        _finish_early(console, directory, job, model)
        raise
    _finish(console, directory, job, model, complete=True)


def _finish_early(console: Console, directory: RunDirectory, job: Job, model: EdgeModel) -> None:
    """Write down what the last round left; if that fails too, the first reason stays the reason."""
    try:
        directory.go_back(model)
        _finish(console, directory, job, model, complete=False)
    except (SettingsError, OSError) as error:
        console.print(str(error), soft_wrap=True, markup=False)


def _finish(
    console: Console, directory: RunDirectory, job: Job, model: EdgeModel, *, complete: bool
) -> None:
    """Write the model and the curves, and say where they are."""
    if not directory.reports:
        if not directory.discard_if_empty():
            console.print(f"no round was finished; the settings and logs are in {directory.path}")
        return
    with console.status("writing the model and the curves"):
        directory.save_weights(model.network)
        directory.save_curves()
        if complete:
            directory.save_onnx(model.network, job.shapes[0])
    last = directory.reports[-1]
    accuracy = next((r.test_accuracy for r in reversed(directory.reports) if r.test_accuracy), None)
    outcome = f"test accuracy {accuracy:.2%}, " if accuracy is not None else ""
    state = "trained" if complete else "stopped after"
    simulated = "simulated " if directory.clock == "virtual" else ""
    console.print(
        f"{state} {last.round} rounds in {last.elapsed_s:.1f} {simulated}s: {outcome}"
        f"results in {directory.path}",
        soft_wrap=True,
    )
    if not complete:
        console.print(f"to go on, give --resume {directory.path}", soft_wrap=True)
