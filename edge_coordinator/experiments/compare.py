"""Methods side by side on one scenario: trained, measured, written down."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from rich.console import Console

from edge_coordinator.experiments.report import cuts_part, groupings_part, training_part
from edge_coordinator.experiments.runs import RunSpec, check_runs
from edge_coordinator.experiments.show import shown_methods
from edge_coordinator.experiments.studies import (
    grouping_of_settings,
    left_aside,
    numbers_taking_part,
    study,
    with_method,
)
from edge_coordinator.experiments.tables import write_rounds
from edge_coordinator.experiments.workers import Effort, progress_bar, train_variants, with_seeds
from edge_coordinator.job.settings import JobSettings
from edge_coordinator.planning.form import Method
from edge_coordinator.run.folder import make_unused
from edge_coordinator.simulation.costs import Costs
from edge_coordinator.simulation.prepare import prepare_simulation
from profiles.scenario import Scenario
from runtime.datasets.sources import load_source
from runtime.errors import StorageError

DEFAULT_TARGET = 0.95
RateRule = Literal["given", "per-sample"]


@dataclass(frozen=True)
class ComparisonTask:
    """What to compare."""

    methods: Sequence[Method]
    settings: JobSettings
    scenario: Scenario
    effort: Effort
    rates: RateRule
    base_dir: Path


def compare(task: ComparisonTask, console: Console) -> Path:
    """Train every method, study groupings and cuts, and write the report; its folder."""
    started_s = time.monotonic()
    target = task.settings.evaluation.target_accuracy or DEFAULT_TARGET
    data = load_source(task.settings.data.source, base_dir=task.base_dir)
    prepared = prepare_simulation(task.settings, task.scenario, data, run=0, base_dir=task.base_dir)
    specs = [method_spec(task, method) for method in task.methods]
    seeds = range(task.settings.seed, task.settings.seed + task.effort.num_seeds)
    check_runs(with_seeds(specs, seeds), data, base_dir=task.base_dir)
    name = f"compare-{task.scenario.name}"
    with new_folder(task.settings.output, name) as folder, progress_bar(console) as bar:
        studies = study(prepared, draws=task.effort.draws, bar=bar)  # They take less than training.
        runs = train_variants(
            specs, seeds=seeds, base_dir=task.base_dir, effort=task.effort, bar=bar
        )
        write_rounds(folder / "rounds.csv", runs)  # Whatever happens now, the training is kept.
    text = "\n".join(
        [
            f"# {', '.join(task.methods)} on scenario {task.scenario.name}\n",
            _what_was_run(task, prepared.simulation.costs, seeds),
            training_part(folder, runs, target=target, until_s=None),
            groupings_part(folder, studies.groupings),
            cuts_part(folder, studies.cuts),
            files_part(time.monotonic() - started_s),
        ]
    )
    (folder / "report.md").write_text(text, encoding="utf-8")
    console.print(shown_methods(runs, target=target))
    return folder


def method_spec(task: ComparisonTask, method: Method) -> RunSpec:
    """Set the method, and its learning rate by the rule that was asked for."""
    settings = with_method(task.settings, method)
    if task.rates == "per-sample":
        rate = settings.training.server_optimizer.learning_rate
        settings = with_rate(settings, rate * step_batches(settings))
    return RunSpec(method, settings, task.scenario, is_pooled=method == "cl")


def with_rate(settings: JobSettings, rate: float) -> JobSettings:
    """Change the server's learning rate, and with it the devices' where none was given."""
    optimizer = settings.training.server_optimizer.model_copy(update={"learning_rate": rate})
    training = settings.training.model_copy(update={"server_optimizer": optimizer})
    return settings.model_copy(update={"training": training})


def step_batches(settings: JobSettings) -> float:
    """How many devices' mini-batches make one step of the optimiser in a comparison."""
    num_devices = len(numbers_taking_part(settings))
    if settings.training.method in {"fl", "cl"}:
        return 1.0  # Each device steps by itself; and so do pooled data.
    return num_devices / len(grouping_of_settings(settings, num_devices))


@contextmanager
def new_folder(output: Path, name: str) -> Iterator[Path]:
    """Make a folder for a report, and remove it if the block fails before anything is in it.

    StorageError if it cannot be made.
    """
    try:
        folder = make_unused(output, f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{name}")
    except OSError as error:
        raise StorageError(f"output {output} cannot be written: {error.strerror}") from error
    try:
        yield folder
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


def files_part(taken_s: float) -> str:
    """Say what lies beside the report."""
    return (
        "## Files\n\n"
        "`rounds.csv`: every round of every run. `runs.csv`: a row a run. `groupings.csv`, "
        "`cuts*.csv`: the tables above. Phases are on the path that a round waits for, and sum "
        f"to its seconds.\n\nMade in {taken_s:.0f} s of this machine's time.\n"
    )


def _what_was_run(task: ComparisonTask, costs: Costs, seeds: Sequence[int]) -> str:
    settings = task.settings
    training = settings.training
    rates = (
        "the same for all methods, as the job gives it"
        if task.rates == "given"
        else "times the devices in a step, so proportional to the samples in it"
    )
    where = "stated by the scenario" if costs.is_stated else "counted from the network"
    return (
        f"{len(numbers_taking_part(settings))} devices, {settings.model.name} on "
        f"`{settings.data.source}` ({settings.data.partition}), {training.rounds} rounds of "
        f"{training.local_epochs} local epoch(s) with mini-batches of {training.batch_size}; "
        f"seeds {seeds[0]} to {seeds[-1]}. "
        "The training is real; the seconds are those of the scenario by the latency model, with "
        f"costs {where}.\n\n"
        f"Scenario: {task.scenario.note}\n\n"
        f"Learning rate: {training.server_optimizer.learning_rate:g}, {rates}. "
        f"{_tested_on(settings)}\n" + "".join(f"\n{said}\n" for said in _of_methods(task))
    )


def _of_methods(task: ComparisonTask) -> list[str]:
    """Say how methods are trained otherwise than the job says."""
    training = task.settings.training
    said = [
        f"{method}: without {' and '.join(left)}, which it cannot have."
        for method in task.methods
        if (left := left_aside(task.settings, method))
    ]
    if "cl" in task.methods:
        said.append(
            "cl: all devices' samples in one place, "
            f"{len(numbers_taking_part(task.settings)) * training.local_epochs} steps of "
            f"{training.batch_size} samples a round: as many samples as the other methods, in "
            "steps of sl's size. Its seconds are those of every device uploading its own samples."
        )
    if "fl" in task.methods and training.local_epochs == 1:
        said.append(
            "fl: one local step a round, which is FedSGD; federated averaging is commonly given "
            "more, so compare it with a higher --local-epochs as well."
        )
    return said


def _tested_on(settings: JobSettings) -> str:
    often = f"every {settings.evaluation.every} round(s)"
    if settings.data.test == "devices":
        return (
            f"Accuracy: on what the devices hold out ({settings.data.held_out:.0%} of their "
            f"samples), {often}; the final one is the last round's."
        )
    most = settings.evaluation.max_samples or "all"
    whose = "" if settings.data.test == "source" else f" of `{settings.data.test}`"
    return (
        f"Accuracy in the rounds: on {most} test samples{whose}, {often}; the final one on all of "
        "them."
    )
