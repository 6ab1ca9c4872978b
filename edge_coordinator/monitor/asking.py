"""Asking a running coordinator for something, and looking after a site's devices.

The only part of the monitor that publishes below a site; the rights to do so are the broker's.
"""

import asyncio
import contextlib
from collections.abc import Mapping

from edge_coordinator.monitor.client import watch
from edge_coordinator.monitor.state import DeviceView, Presence, SiteState
from runtime.bus.bus import Bus, Delivery
from runtime.errors import MalformedMessageError, SettingsError
from runtime.wire.ownership import new_session
from runtime.wire.published import CoordinatorStatus, DeviceProfile
from runtime.wire.run_control import (
    Action,
    ControlAnswer,
    ControlRequest,
    DeviceTags,
    SettingsReport,
    WantedSettings,
)
from runtime.wire.topics import Topics

ANSWER_S = 10.0
"""How long a coordinator may take to answer; it does so at once, whatever it is at."""


async def ask_coordinator(bus: Bus, topics: Topics, action: Action, *, by: str) -> ControlAnswer:
    """Ask whoever coordinates a site, as `by`; SettingsError if nobody answers."""
    request = ControlRequest(action=action, request=new_session(), by=by)
    await bus.subscribe(topics.coordinator_status)
    await bus.subscribe(topics.control_answer)
    await bus.publish(topics.control, request.encode(), retain=False)
    status: CoordinatorStatus | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            async for event in bus.events():
                if not isinstance(event, Delivery) or not event.payload:
                    continue
                if event.topic == topics.coordinator_status:
                    status = _decoded_status(event.payload)
                    if status is not None and status.state == "offline":
                        break
                answer = _decoded_answer(event.payload)
                if answer is not None and answer.request == request.request:
                    return answer
    raise SettingsError(_why_silent(topics, status))


def _decoded_status(payload: memoryview) -> CoordinatorStatus | None:
    with contextlib.suppress(MalformedMessageError):
        return CoordinatorStatus.decode(payload)
    return None


def _decoded_answer(payload: memoryview) -> ControlAnswer | None:
    with contextlib.suppress(MalformedMessageError):
        return ControlAnswer.decode(payload)
    return None


def _why_silent(topics: Topics, status: CoordinatorStatus | None) -> str:
    if status is None:
        return f"no coordinator was ever on site {topics.site!r} of this broker"
    if status.state == "offline":
        return f"the coordinator of site {topics.site!r} is offline"
    return (
        f"the coordinator of site {topics.site!r} did not answer within {ANSWER_S:.0f} s; it may "
        f"be of an earlier version, or this account may not write to {topics.control}"
    )


async def site_of(bus: Bus, topics: Topics) -> SiteState:
    """Look at a site once; SettingsError if there is nothing."""
    seen: list[SiteState] = []
    await watch(bus, topics, show=seen.append, once=True)
    return seen[0]


def device_of(state: SiteState, device: str) -> DeviceView:
    """Find a device; SettingsError that names those that there are."""
    found = {view.device: view for view in state.devices}
    if device not in found:
        names = ", ".join(found) or "none"
        raise SettingsError(f"no device {device!r} on site {state.site!r}; there are {names}")
    return found[device]


async def forget_device(bus: Bus, topics: Topics, device: str) -> None:
    """Take back what a device has retained; SettingsError if it is there and would say it again."""
    view = device_of(await site_of(bus, topics), device)
    if view.presence is not Presence.OFFLINE:
        raise SettingsError(
            f"{device} is {view.presence}, not offline; stop its agent first, or it would be back"
        )
    for leaf in (topics.status, topics.profile, topics.tags, topics.settings):
        await bus.publish(leaf(device), b"", retain=True)


async def tag_device(
    bus: Bus, topics: Topics, device: str, changes: dict[str, str | None]
) -> dict[str, str]:
    """Change a device's tags; None takes one away. Returns all that it has then."""
    view = device_of(await site_of(bus, topics), device)
    tags = {key: value for key, value in ({**view.tags, **changes}).items() if value is not None}
    content = DeviceTags(tags=tags).encode() if tags else b""
    await bus.publish(topics.tags(device), content, retain=True)
    return tags


async def set_device(
    bus: Bus, topics: Topics, device: str, changes: Mapping[str, str | None], *, by: str
) -> SettingsReport | None:
    """Change the settings that are wanted of a device, as `by`; None takes one away.

    Returns what the device made of all that are wanted then; None if it is offline, and takes them
    when it is back. SettingsError if it does not answer.
    """
    view = device_of(await site_of(bus, topics), device)
    before = view.wanted.settings if view.wanted is not None else {}
    settings = {key: value for key, value in {**before, **changes}.items() if value is not None}
    wanted = WantedSettings(settings=settings, request=new_session() if settings else "", by=by)
    await bus.publish(topics.settings(device), wanted.encode() if settings else b"", retain=True)
    if view.presence is Presence.OFFLINE:
        return None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            async for event in bus.events():
                if not isinstance(event, Delivery) or event.topic != topics.profile(device):
                    continue
                report = _decoded_report(event.payload)
                if report is not None and report.request == wanted.request:
                    return report
    raise SettingsError(
        f"{device} did not answer within {ANSWER_S:.0f} s; its agent may be of an earlier version, "
        f"or this account may not write to {topics.settings(device)}"
    )


def _decoded_report(payload: memoryview) -> SettingsReport | None:
    with contextlib.suppress(MalformedMessageError):
        return DeviceProfile.decode(payload).settings
    return None
