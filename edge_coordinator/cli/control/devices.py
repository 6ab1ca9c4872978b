"""What `cpsl devices` does: a site's devices, listed, tagged, set and forgotten."""

import argparse
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from edge_coordinator.cli.control.site import on_site, own_name
from edge_coordinator.cli.output import Output
from edge_coordinator.formatting import duration
from edge_coordinator.monitor.asking import forget_device, set_device, site_of, tag_device
from edge_coordinator.monitor.state import DeviceView
from runtime.errors import SettingsError
from runtime.wire.fields import as_words
from runtime.wire.run_control import SettingsReport


def look_after_devices(flags: argparse.Namespace, console: Output) -> None:
    """List, tag, set or forget devices."""
    match flags.what:
        case "list":
            state = on_site(flags, site_of)
            listed = [_device_fields(view) for view in state.devices]
            console.answer(listed, devices_table(state.devices))
        case "tag":
            _tag(flags, console)
        case "set":
            _set(
                flags,
                console,
                dict(_change(text, "a setting", "threads=2") for text in flags.settings),
            )
        case "unset":
            _set(flags, console, dict.fromkeys(flags.settings))
        case "forget":
            on_site(flags, lambda bus, topics: forget_device(bus, topics, flags.device))
            answer = {"device": flags.device, "forgotten": True}
            console.answer(answer, f"{flags.device}: forgotten")


def _tag(flags: argparse.Namespace, console: Output) -> None:
    changes = dict(_change(text, "a tag", "room=lab") for text in flags.tags)
    tags = on_site(flags, lambda bus, topics: tag_device(bus, topics, flags.device, changes))
    answer = {"device": flags.device, "tags": tags}
    console.answer(answer, f"{flags.device}: {_tags_of(tags) or 'no tags'}")


def _set(flags: argparse.Namespace, console: Output, changes: Mapping[str, str | None]) -> None:
    """Change what is wanted of a device; SettingsError if it refuses any of it."""
    named = {_setting_name(name): value for name, value in changes.items()}
    by = own_name()
    report = on_site(flags, lambda bus, topics: set_device(bus, topics, flags.device, named, by=by))
    applied, refused = (report.applied, report.refused) if report else (None, {})
    answer = {"device": flags.device, "applied": applied, "refused": refused}
    if report is None:
        words = "is offline, and takes its settings when it is back"
    else:
        words = f"works with {_settings_of(report.applied) or 'the settings of its start'}"
    console.answer(answer, f"{flags.device} {words}")
    if refused:
        raise SettingsError(f"{flags.device} refuses {'; '.join(refused.values())}")


def _setting_name(text: str) -> str:
    return text.replace("-", "_")


def _change(text: str, what: str, example: str) -> tuple[str, str | None]:
    key, is_change, value = text.partition("=")
    if not (key and is_change):
        raise SettingsError(f"{text!r} is not {what}; give KEY=VALUE, such as {example}")
    return key, value or None


def _device_fields(view: DeviceView) -> dict[str, Any]:
    return {
        "device": view.device,
        "state": view.presence,
        "why": view.why or None,
        "engine": view.engine or None,
        "last_seen_unix_s": view.profile.measured_at_unix_s if view.profile else None,
        "tags": dict(view.tags),
        "wanted_settings": dict(view.wanted.settings) if view.wanted else {},
        "applied_settings": _report_of(view).applied,
        "refused_settings": _report_of(view).refused,
    }


def _tags_of(tags: object) -> str:
    assert isinstance(tags, dict)
    return ", ".join(f"{key}={value}" for key, value in sorted(tags.items()))


def _report_of(view: DeviceView) -> SettingsReport:
    report = view.profile.settings if view.profile is not None else None
    return report or SettingsReport(applied={})


def _settings_of(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in sorted(settings.items()))


def _settings_in_words(view: DeviceView) -> str:
    """Say what holds, what is refused, and what waits for the device to come back."""
    report, wanted = _report_of(view), view.wanted.settings if view.wanted is not None else {}
    waiting = {
        name: value
        for name, value in wanted.items()
        if name not in report.refused and report.applied.get(name) != str(value)
    }
    parts = [_settings_of(report.applied)]
    parts += [f"refused: {', '.join(report.refused)}"] if report.refused else []
    parts += [f"waiting: {_settings_of(waiting)}"] if waiting else []
    return as_words("; ".join(filter(None, parts)))  # Strangers may have written them.


def devices_table(devices: tuple[DeviceView, ...]) -> Table:
    """Show devices as people read them; settings where any device has some."""
    said = {view.device: _settings_in_words(view) for view in devices}
    more = ("settings",) if any(said.values()) else ()
    table = Table(box=None, pad_edge=False)
    for name in ("device", "state", "seen", "engine", "tags", *more):
        table.add_column(name, overflow="fold")
    for view in devices:
        age_s = view.ages.facts_s
        seen = f"{duration(age_s)} ago" if age_s is not None else "never"
        row = (view.device, view.presence, seen, view.engine, _tags_of(dict(view.tags)))
        table.add_row(*row, *(said[view.device] for _ in more))
    return table
