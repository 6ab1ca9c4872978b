"""Watching a site: a client of its retained topics and the devices' metrics, nothing more.

It publishes nothing, so an account that may only read is enough.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

from edge_coordinator.monitor.state import SiteState
from edge_coordinator.monitor.view import SiteView
from runtime.bus.broker_url import TlsFiles
from runtime.bus.bus import Bus, BusEvent, Connected, Delivery, Disconnected
from runtime.bus.mqtt_bus import MqttBus
from runtime.errors import SettingsError
from runtime.wire.ownership import new_session
from runtime.wire.topics import Topics

Show = Callable[[SiteState], None]

_QUIET_S = 0.15
_LONGEST_WAIT_S = 5.0
_REFRESH_S = 1.0
_PAUSE_S = 0.2


async def monitor(
    url: str,
    site: str,
    *,
    tls: TlsFiles,
    show: Show,
    once: bool = False,
    from_the_start: bool = False,
) -> None:
    """Show a site again and again, until cancelled; with `once` when it is complete, then return.

    What is shown first is complete, unless it is to be shown `from_the_start`: on a site that is
    never silent nobody can tell when it is. Raises SettingsError if `once` finds nothing.
    """
    topics = Topics(site)
    client_id = f"monitor-{new_session()}"
    async with await MqttBus.connect(url, client_id=client_id, wait=False, tls=tls) as bus:
        await watch(bus, topics, show=show, once=once, from_the_start=from_the_start)


class Follower(Protocol):
    """Takes in what is published, such as a `SiteView`."""

    def topic_filters(self) -> Sequence[str]:
        """Return what to subscribe to."""
        ...

    def connected(self) -> None:
        """Begin anew: the broker is about to tell all that it has retained."""
        ...

    def disconnected(self, reason: str) -> None:
        """Note that nothing is heard any more."""
        ...

    def receive(
        self, topic: str, payload: bytes | memoryview, *, retained: bool, now_s: float
    ) -> None:
        """Take a message."""
        ...


async def follow(
    url: str,
    follower: Follower,
    *,
    tls: TlsFiles,
    on_quiet: Callable[[Bus], Awaitable[None]] | None = None,
) -> None:
    """Have a follower take in what is published, until cancelled.

    `on_quiet` is awaited whenever something came and nothing follows it for the moment.
    """
    client_id = f"monitor-{new_session()}"
    async with await MqttBus.connect(url, client_id=client_id, wait=False, tls=tls) as bus:
        await follow_on(bus, follower, on_quiet=on_quiet)


async def follow_on(
    bus: Bus, follower: Follower, *, on_quiet: Callable[[Bus], Awaitable[None]] | None = None
) -> None:
    """Do the same on a bus that stands."""
    changed = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_receive(bus.events(), follower, changed), name="receive")
        quiet_s = await _subscribe(bus, follower)
        while on_quiet is not None:
            await changed.wait()
            await _until_complete(changed, quiet_s=quiet_s)
            await on_quiet(bus)


async def watch(
    bus: Bus, topics: Topics, *, show: Show, once: bool = False, from_the_start: bool = False
) -> None:
    """Do the same on a bus that stands."""
    view = SiteView(topics)
    changed = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        receiving = tasks.create_task(_receive(bus.events(), view, changed), name="receive")
        quiet_s = await _subscribe(bus, view)
        if not from_the_start:
            await _until_complete(changed, quiet_s=quiet_s)
        if once:
            _show_once(view, topics, show)
        else:
            await _show_changes(view, changed, show)
        receiving.cancel()


async def _receive(events: AsyncIterator[BusEvent], view: Follower, changed: asyncio.Event) -> None:
    async for event in events:
        match event:
            case Connected():
                view.connected()
            case Disconnected(reason):
                view.disconnected(reason)
            case Delivery(topic, payload, retained):
                view.receive(topic, payload, retained=retained, now_s=time.time())
        changed.set()


async def _subscribe(bus: Bus, view: Follower) -> float:
    """Subscribe to all; returns how long a silence on this connection means something."""
    start_s = time.monotonic()
    await asyncio.gather(*(bus.subscribe(topic_filter) for topic_filter in view.topic_filters()))
    return max(_QUIET_S, 2 * (time.monotonic() - start_s))


async def _until_complete(changed: asyncio.Event, *, quiet_s: float) -> None:
    """Wait until the broker falls silent: MQTT does not say which retained message is the last.

    Where the site is never silent, what is retained has come long before the wait is over.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LONGEST_WAIT_S):
            while await _happens(changed, within_s=quiet_s):
                changed.clear()


async def _happens(changed: asyncio.Event, *, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):  # Before Python 3.12 `wait_for` may lose a cancel.
            await changed.wait()
    except TimeoutError:
        return False
    return True


def _show_once(view: SiteView, topics: Topics, show: Show) -> None:
    state = view.state(time.time())
    if state.is_empty:
        raise SettingsError(
            f"there is nothing on site {topics.site!r}: no message on "
            f"{', '.join(view.topic_filters())}"
        )
    show(state)


async def _show_changes(view: SiteView, changed: asyncio.Event, show: Show) -> None:
    """Show at every change, though not more often than a person can read, and as ages grow.

    What was heard last is shown even if it is cancelled then.
    """
    try:
        while True:
            changed.clear()
            show(view.state(time.time()))
            await asyncio.sleep(_PAUSE_S)
            await _happens(changed, within_s=_REFRESH_S)
    finally:
        if changed.is_set():
            show(view.state(time.time()))
