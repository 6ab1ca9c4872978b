"""The commands that look after runs, devices and a running coordinator."""

import argparse
import asyncio
import getpass
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from rich.table import Table

from edge_coordinator.cli.output import Output
from edge_coordinator.formatting import duration, figure_in_words
from edge_coordinator.monitor.asking import ask_coordinator, forget_device, site_of, tag_device
from edge_coordinator.monitor.asking_queue import ask_queue, queue_of
from edge_coordinator.monitor.listing import RecordedRun, recorded_runs
from edge_coordinator.monitor.state import DeviceView
from runtime.bus.broker_url import TlsFiles
from runtime.bus.bus import Bus
from runtime.bus.mqtt_bus import MqttBus
from runtime.errors import SettingsError
from runtime.wire.fields import as_words
from runtime.wire.ownership import new_session
from runtime.wire.run_control import QueueAnswer
from runtime.wire.topics import Topics

Answer = TypeVar("Answer")


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
    answer = _on_site(
        flags, lambda bus, topics: ask_coordinator(bus, topics, flags.command, by=_own_name())
    )
    if answer.accepted or flags.json:
        console.answer(answer.model_dump(mode="json"), f"run {answer.run:016x} {answer.words}")
    if not answer.accepted:
        raise SettingsError(answer.words)


def look_after_devices(flags: argparse.Namespace, console: Output) -> None:
    """List, tag or forget devices."""
    match flags.what:
        case "list":
            state = _on_site(flags, site_of)
            listed = [_device_fields(view) for view in state.devices]
            console.answer(listed, _devices_table(state.devices))
        case "tag":
            _tag(flags, console)
        case "forget":
            _on_site(flags, lambda bus, topics: forget_device(bus, topics, flags.device))
            answer = {"device": flags.device, "forgotten": True}
            console.answer(answer, f"{flags.device}: forgotten")


def _tag(flags: argparse.Namespace, console: Output) -> None:
    changes = dict(_change(text) for text in flags.tags)
    tags = _on_site(flags, lambda bus, topics: tag_device(bus, topics, flags.device, changes))
    answer = {"device": flags.device, "tags": tags}
    console.answer(answer, f"{flags.device}: {_tags_of(tags) or 'no tags'}")


def list_runs(flags: argparse.Namespace, console: Output) -> None:
    """List what a folder holds."""
    if flags.queue:
        _list_queue(flags, console)
        return
    runs = recorded_runs(flags.folder)
    console.answer([run.as_json() for run in runs], _runs_table(runs))


def _list_queue(flags: argparse.Namespace, console: Output) -> None:
    from edge_coordinator.cli.control.serving import queue_table

    report = _on_site(flags, queue_of)
    if report.state == "offline":
        console.say("nobody serves it now; the jobs go on when somebody does")
    console.answer(report.model_dump(mode="json"), queue_table(report))


def submit_job(flags: argparse.Namespace, console: Output) -> None:
    """Queue a job; SettingsError if it is not taken."""
    from edge_coordinator.cli.control.submitted import job_text
    from edge_coordinator.job.file import load_job, parse_assignment

    overrides = dict(parse_assignment(text) for text in flags.set)
    settings = load_job(flags.job, overrides)  # A mistake is said here, before it is sent.
    text = job_text(settings.model_copy(update={"broker": type(settings.broker)()}))
    by, name = _own_name(), flags.job.stem[:64]
    answer = _on_site(
        flags,
        lambda bus, topics: ask_queue(bus, topics, by=by, action="submit", job=text, name=name),
    )
    _tell_queued(answer, console)


def cancel_job(flags: argparse.Namespace, console: Output) -> None:
    """Give up a job; SettingsError if that cannot be."""
    by, number = _own_name(), max(flags.number, 0)
    answer = _on_site(
        flags, lambda bus, topics: ask_queue(bus, topics, by=by, action="cancel", number=number)
    )
    _tell_queued(answer, console)


def _tell_queued(answer: QueueAnswer, console: Output) -> None:
    if answer.accepted or console.is_json:
        console.answer(answer.model_dump(mode="json"), f"job {answer.number} {answer.words}")
    if not answer.accepted:
        raise SettingsError(answer.words)


def _own_name() -> str:
    """Who asks: what a run that was stopped says of it; a user need not have a name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "somebody"
    return as_words(f"{user}@{socket.gethostname()}")


def _on_site(flags: argparse.Namespace, do: Callable[[Bus, Topics], Awaitable[Answer]]) -> Answer:
    if flags.fleet is not None:
        from edge_coordinator.cli.fleet.commands import watch_fleet

        watch_fleet(flags, user="coordinator")

    async def connected() -> Answer:
        tls = TlsFiles(flags.cafile, flags.certfile, flags.keyfile)
        client_id = f"control-{new_session()}"
        async with await MqttBus.connect(
            flags.broker, client_id=client_id, wait=False, tls=tls
        ) as bus:
            return await do(bus, Topics(flags.site))

    return asyncio.run(connected())


def _change(text: str) -> tuple[str, str | None]:
    key, is_tag, value = text.partition("=")
    if not (key and is_tag):
        raise SettingsError(f"{text!r} is not a tag; give KEY=VALUE, such as room=lab")
    return key, value or None


def _device_fields(view: DeviceView) -> dict[str, Any]:
    return {
        "device": view.device,
        "state": view.presence,
        "why": view.why or None,
        "engine": view.engine or None,
        "last_seen_unix_s": view.profile.measured_at_unix_s if view.profile else None,
        "tags": dict(view.tags),
    }


def _tags_of(tags: object) -> str:
    assert isinstance(tags, dict)
    return ", ".join(f"{key}={value}" for key, value in sorted(tags.items()))


def _devices_table(devices: tuple[DeviceView, ...]) -> Table:
    table = Table("device", "state", "seen", "engine", "tags", box=None)
    for view in devices:
        age_s = view.ages.facts_s
        seen = f"{duration(age_s)} ago" if age_s is not None else "never"
        table.add_row(view.device, view.presence, seen, view.engine, _tags_of(dict(view.tags)))
    return table


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
