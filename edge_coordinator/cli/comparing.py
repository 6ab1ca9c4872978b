"""The commands that compare: methods, with a report and its tables; a run with what it might be."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edge_coordinator.cli.job_of_flags import replayed_settings, simulated_settings
from edge_coordinator.cli.output import Output

if TYPE_CHECKING:
    from edge_coordinator.experiments.workers import Effort


def compare_methods(flags: argparse.Namespace, console: Output) -> None:
    """Compare methods on a scenario."""
    from edge_coordinator.run.temporary import temporary_files_near

    settings, scenario = simulated_settings(flags, console)
    with temporary_files_near(settings.output):  # Plots want a place before they are imported.
        from edge_coordinator.experiments.compare import ComparisonTask, compare

        task = ComparisonTask(
            methods=flags.methods,
            settings=settings,
            scenario=scenario,
            effort=_effort(flags),
            rates=flags.rates,
            base_dir=Path.cwd(),
        )
        _answer_with_report(console, compare(task, console))


def reproduce(flags: argparse.Namespace, console: Output) -> None:
    """Repeat the paper's comparison."""
    from edge_coordinator.run.temporary import temporary_files_near

    with temporary_files_near(flags.output):
        from edge_coordinator.experiments.paper.reproduce import PaperTask, reproduce_paper

        task = PaperTask(
            data=flags.data,
            rounds=flags.rounds,
            effort=_effort(flags),
            learning_rate=flags.learning_rate,
            target=flags.target_accuracy,
            output=flags.output,
            base_dir=Path.cwd(),
        )
        _answer_with_report(console, reproduce_paper(task, console))


def replay_run(flags: argparse.Namespace, console: Output) -> None:
    """Price a recorded run under another plan or setting."""
    settings = replayed_settings(flags)
    from edge_coordinator.experiments.priced_rounds import price_run
    from edge_coordinator.experiments.show_priced import priced_document, shown_rounds
    from edge_coordinator.job.prepare import prepare_job

    job, model = prepare_job(settings, run=0, base_dir=Path.cwd(), data=None)
    rounds = price_run(flags.run, job, model)
    document = {"run": str(flags.run), **priced_document(rounds, job)}
    console.answer(document, *shown_rounds(rounds, job))


def _effort(flags: argparse.Namespace) -> "Effort":
    from edge_coordinator.experiments.executors import check_executor
    from edge_coordinator.experiments.workers import Effort

    check_executor(flags.executor)
    return Effort(
        num_seeds=flags.seeds, workers=flags.workers, executor=flags.executor, draws=flags.draws
    )


def _answer_with_report(console: Output, folder: Path) -> None:
    """Say where the report is; programs get its tables, by the names of their files."""
    from edge_coordinator.experiments.tables import read_tables

    report = folder / "report.md"
    tables = read_tables(folder) if console.is_json else {}
    shown = str(report) if console.form == "quiet" else f"the report is {report}"
    console.answer({"report": str(report), "tables": tables}, shown)
