"""The commands that look after runs, devices and a running coordinator."""

import argparse

from rich.table import Table

from edge_coordinator.cli.control.devices import look_after_devices
from edge_coordinator.cli.control.site import on_site, own_name
from edge_coordinator.cli.output import Output
from edge_coordinator.formatting import figure_in_words
from edge_coordinator.monitor.asking import ask_coordinator
from edge_coordinator.monitor.asking_queue import ask_queue, queue_of
from edge_coordinator.monitor.listing import RecordedRun, recorded_runs
from runtime.errors import SettingsError
from runtime.service.arguments import parse_assignment
from runtime.wire.run_control import QueueAnswer


def look_after(flags: argparse.Namespace, console: Output) -> None:
    """Do what one of these commands says."""
    commands = {
        "devices": look_after_devices,
        "runs": list_runs,
        "submit": submit_job,
        "cancel": cancel_job,
    }
    commands.get(flags.command, control_run)(flags, console)


def control_run(flags: argparse.Namespace, console: Output) -> None:
    """Ask a running coordinator; SettingsError if it does not do it."""
    answer = on_site(
        flags, lambda bus, topics: ask_coordinator(bus, topics, flags.command, by=own_name())
    )
    if answer.accepted or flags.json:
        console.answer(answer.model_dump(mode="json"), f"run {answer.run:016x} {answer.words}")
    if not answer.accepted:
        raise SettingsError(answer.words)


def list_runs(flags: argparse.Namespace, console: Output) -> None:
    """List what a folder holds."""
    if flags.queue:
        _list_queue(flags, console)
        return
    runs = recorded_runs(flags.folder)
    console.answer([run.as_json() for run in runs], _runs_table(runs))


def _list_queue(flags: argparse.Namespace, console: Output) -> None:
    from edge_coordinator.cli.control.serving import queue_table

    view = on_site(flags, queue_of)
    if view.state == "offline":
        console.say("nobody serves it now; the jobs go on when somebody does")
    jobs = [job.model_dump(mode="json") for job in view.jobs]
    console.answer({"state": view.state, "jobs": jobs}, queue_table(view))


def submit_job(flags: argparse.Namespace, console: Output) -> None:
    """Queue a job; SettingsError if it is not taken."""
    from edge_coordinator.cli.control.submitted import job_text
    from edge_coordinator.job.file import load_job

    overrides = dict(parse_assignment(text) for text in flags.set)
    settings = load_job(flags.job, overrides)  # A mistake is said here, before it is sent.
    text = job_text(settings.model_copy(update={"broker": type(settings.broker)()}))
    by, name = own_name(), flags.job.stem[:64]
    answer = on_site(
        flags,
        lambda bus, topics: ask_queue(bus, topics, by=by, action="submit", job=text, name=name),
    )
    _tell_queued(answer, console)


def cancel_job(flags: argparse.Namespace, console: Output) -> None:
    """Give up a job; SettingsError if that cannot be."""
    by, number = own_name(), max(flags.number, 0)
    answer = on_site(
        flags, lambda bus, topics: ask_queue(bus, topics, by=by, action="cancel", number=number)
    )
    _tell_queued(answer, console)


def _tell_queued(answer: QueueAnswer, console: Output) -> None:
    if answer.accepted or console.is_json:
        console.answer(answer.model_dump(mode="json"), f"job {answer.number} {answer.words}")
    if not answer.accepted:
        raise SettingsError(answer.words)


def _runs_table(runs: list[RecordedRun]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("run", "rounds", "test", "seconds"):
        table.add_column(name, justify="left" if name == "run" else "right", no_wrap=True)
    table.add_column("state", overflow="fold")
    for run in runs:
        test = _figure(run)
        seconds = f"{run.elapsed_s:.1f}" if run.elapsed_s is not None else ""
        rounds = f"{run.round} of {run.num_rounds or '?'}"
        table.add_row(run.name, rounds, test, seconds, run.state)
    return table


def _figure(run: RecordedRun) -> str:
    if run.metric is None or run.test_metric is None:
        return ""
    return f"{run.metric} {figure_in_words(run.metric, run.test_metric)}"
