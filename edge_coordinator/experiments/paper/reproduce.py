"""The paper's comparison with real training: the published figures beside ours."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from edge_coordinator.experiments.compare import files_part, new_folder, step_batches, with_rate
from edge_coordinator.experiments.latencies import Latency, Setting, method_latency
from edge_coordinator.experiments.paper.claims import claims_part
from edge_coordinator.experiments.paper.readings import readings_part
from edge_coordinator.experiments.paper.report import (
    BOTH,
    FIGURES_HEADER,
    INT8,
    OTHER,
    OVERLAPPED,
    figures_rows,
    figures_table,
    parameters_part,
    reasons_part,
    spread_part,
)
from edge_coordinator.experiments.paper.results import PaperResults
from edge_coordinator.experiments.paper.tuning import (
    Candidate,
    best,
    candidates_of,
    specs_of,
    tuning_part,
)
from edge_coordinator.experiments.report import cuts_part, groupings_part, training_part
from edge_coordinator.experiments.results import Runs
from edge_coordinator.experiments.runs import RunSpec
from edge_coordinator.experiments.show import shown_table
from edge_coordinator.experiments.studies import Studies, study, with_method
from edge_coordinator.experiments.tables import write_rounds
from edge_coordinator.experiments.workers import Effort, progress_bar, train_variants
from edge_coordinator.job.codec_settings import CodecSettings
from edge_coordinator.job.file import load_job
from edge_coordinator.job.settings import JobSettings
from edge_coordinator.planning.form import Method
from edge_coordinator.simulation.prepare import PreparedSimulation, prepare_simulation, settings_for
from profiles.scenario import Scenario
from runtime.addresses import own_path
from runtime.datasets.sources import load_source
from runtime.errors import SettingsError

LIKELY_FOLDERS = ("data/mnist", "mnist", "../data/mnist", "../mnist")
EVALUATION_SAMPLES, EVALUATE_EVERY = 2000, 2
SPREAD = 0.1
MICRO_BATCHES = 4


@dataclass(frozen=True)
class PaperTask:
    """What the user may change of the paper's comparison."""

    data: str | None
    rounds: int
    effort: Effort
    learning_rate: float
    target: float
    output: Path
    base_dir: Path


def reproduce_paper(task: PaperTask, console: Console) -> Path:
    """Train every method with every seed, and write the report; its folder."""
    started_s = time.monotonic()
    source, why = find_data(task.data, base_dir=task.base_dir)
    console.print(f"data: {why}", soft_wrap=True)
    settings, scenario = settings_for(
        lambda defaults: load_job(None, _overrides(task, source), defaults=defaults),
        base_dir=task.base_dir,
        from_file=False,
        say=partial(console.print, soft_wrap=True),
    )
    data = load_source(source, base_dir=task.base_dir)
    prepared = prepare_simulation(settings, scenario, data, run=0, base_dir=task.base_dir)
    with new_folder(task.output, "reproduce-paper") as folder:
        found = _measure(task, settings, prepared, folder, console)
    results, studies = found.results, found.studies
    until_s = max(run.rounds[-1].elapsed_s for run in results.runs["SL"])
    parts = [
        "# The paper's comparison, with real training\n",
        _what_was_run(task, settings, prepared, why),
        figures_table(results),
        claims_part(results),
        reasons_part(results),
        readings_part(studies.setting, spread=SPREAD, draws=2 * task.effort.draws),
        spread_part(results, SPREAD, 2 * task.effort.draws),
        training_part(folder, results.runs, target=task.target, until_s=until_s),
        tuning_part(found.candidates, seed=task.effort.num_seeds),
        groupings_part(folder, studies.groupings),
        cuts_part(folder, studies.cuts),
        parameters_part(results, settings),
        files_part(time.monotonic() - started_s),
    ]
    (folder / "report.md").write_text("\n".join(parts), encoding="utf-8")
    console.print(shown_table(FIGURES_HEADER, figures_rows(results)))
    console.print(claims_part(results), markup=False)
    return folder


@dataclass(frozen=True)
class _Found:
    results: PaperResults
    studies: Studies
    candidates: Sequence[Candidate]


def _measure(
    task: PaperTask,
    settings: JobSettings,
    prepared: PreparedSimulation,
    folder: Path,
    console: Console,
) -> _Found:
    """Study latencies, groupings and cuts, and train, under a progress bar."""
    scenario = prepared.simulation.scenario
    specs = variants(settings, scenario)
    with progress_bar(console) as bar:
        studies = study(prepared, draws=task.effort.draws, bar=bar)
        spread = _spread(studies.setting, draws=2 * task.effort.draws, bar=bar)
        tried = specs_of(next(spec for spec in specs if spec.label == "FL"), studies.setting)
        search = _train(task, list(tried.values()), [task.effort.num_seeds], bar)
        candidates = candidates_of(search, tried, target=task.target)
        chosen = best(candidates).local_epochs
        if chosen > 1:
            specs.append(tried[chosen])
        runs = _train(task, specs, range(task.effort.num_seeds), bar)
        write_rounds(folder / "rounds.csv", runs)  # Whatever happens now, the training is kept.
    results = PaperResults(
        runs=runs,
        scenario=scenario,
        target=task.target,
        spread=spread,
        counted=prepared.simulation.counted,
        learning_rate=task.learning_rate,
        tuned_fl=tried[chosen].label if chosen > 1 else "FL",
    )
    return _Found(results, studies, candidates)


def _train(task: PaperTask, specs: Sequence[RunSpec], seeds: Sequence[int], bar: Progress) -> Runs:
    return train_variants(specs, seeds=seeds, base_dir=task.base_dir, effort=task.effort, bar=bar)


def find_data(given: str | None, *, base_dir: Path) -> tuple[str, str]:
    """Name the data source to train on, and say why it is this one."""
    if given is not None:
        path = own_path(given, base_dir=base_dir)
        source = f"mnist:{given}" if path.is_dir() else given
        return source, f"{source}, as given"
    for folder in LIKELY_FOLDERS:
        if any((base_dir / folder).glob("train-images*")):
            return f"mnist:{folder}", f"MNIST, found in {folder}"
    return (
        "digits",
        "scikit-learn's digits, NOT the paper's MNIST: no folder with its files was found; "
        "give one by --data DIR",
    )


def variants(settings: JobSettings, scenario: Scenario) -> list[RunSpec]:
    """List what is trained: each method at its rate, and CPSL also at SL's own rate."""
    base = settings.training.server_optimizer.learning_rate

    def spec(
        label: str,
        method: Method,
        *,
        at_rule: bool = True,
        codec: str | None = None,
        micro_batches: int = 1,
    ) -> RunSpec:
        chosen = with_method(settings, method)
        training = chosen.training.model_copy(update={"micro_batches": micro_batches})
        chosen = chosen.model_copy(update={"training": training})
        if codec is not None:
            chosen = chosen.model_copy(update={"codec": CodecSettings(name=codec)})
        if at_rule:
            chosen = with_rate(chosen, base * step_batches(chosen))
        return RunSpec(label, chosen, scenario, is_pooled=method == "cl")

    return [
        spec("CPSL", "cpsl"),
        spec(OTHER, "cpsl", at_rule=False),
        spec(INT8, "cpsl", codec="int8"),
        spec(OVERLAPPED, "cpsl", micro_batches=MICRO_BATCHES),
        spec(BOTH, "cpsl", codec="int8", micro_batches=MICRO_BATCHES),
        spec("SL", "sl"),
        spec("FL", "fl"),
        spec("CL", "cl"),
    ]


def _spread(setting: Setting, *, draws: int, bar: Progress) -> Mapping[str, Latency]:
    """Round latencies of each method where devices and links differ a little."""
    methods: Sequence[Method] = ("cpsl", "sl", "fl")
    latencies: dict[str, Latency] = {}
    for method in bar.track(methods, description="methods in other states"):
        latencies[method] = method_latency(setting, method, spread=SPREAD, draws=draws)
    return latencies


def _overrides(task: PaperTask, source: str) -> dict[str, object]:
    if not 0 < task.target <= 1:
        raise SettingsError(f"--target-accuracy {task.target:g}: a fraction above 0, up to 1")
    return {
        "devices.scenario": "paper",
        "data.source": source,
        "data.partition": "classes:3",
        "plan.mode": "by_hand",
        "training.rounds": task.rounds,
        "training.server_optimizer.learning_rate": task.learning_rate,
        "training.server_optimizer.momentum": 0.0,
        "training.schedule.name": "constant",
        "evaluation.every": EVALUATE_EVERY,
        "evaluation.max_samples": EVALUATION_SAMPLES,
        "output": str(task.output),
    }


def _what_was_run(
    task: PaperTask, settings: JobSettings, prepared: PreparedSimulation, why: str
) -> str:
    test = prepared.job.test
    num_test = len(test) if test is not None else 0
    return (
        f"Data: {why}. {settings.devices.count} devices with three classes each, "
        f"{task.rounds} rounds, seeds 0 to {task.effort.num_seeds - 1}. Every step is really "
        "computed; seconds are simulated by the latency model on the paper scenario, whose cost "
        "table says what time passes.\n\n"
        f"Accuracy during training is that on {num_test} test samples (evenly spaced), every "
        f"{EVALUATE_EVERY} rounds; the final accuracy is that of the last model on all test "
        "samples.\n"
    )
