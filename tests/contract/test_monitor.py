"""Watching a site over each kind of bus."""

import asyncio
import time
import uuid

import pytest

from edge_coordinator.monitor.client import watch
from edge_coordinator.monitor.state import SiteState
from runtime.bus.bus import Bus
from runtime.bus.memory_bus import MemoryBroker
from runtime.errors import SettingsError
from runtime.wire.published import CoordinatorStatus, DeviceStatus
from runtime.wire.topics import Topics
from tests.contract.conftest import Wire


@pytest.fixture
def topics() -> Topics:
    """Return a site of its own."""
    return Topics(f"site-{uuid.uuid4().hex[:8]}")


async def _announce(bus: Bus, topics: Topics, num_devices: int) -> None:
    status = DeviceStatus(state="online", session="s", since_unix_s=time.time())
    for number in range(num_devices):
        await bus.publish(topics.status(f"d{number:02}"), status.encode(), retain=True)


async def test_once_shows_all_that_was_retained_before_it_came(wire: Wire, topics: Topics) -> None:
    async with asyncio.timeout(30):
        await _announce(await wire.connect("agents"), topics, 40)
        shown: list[SiteState] = []
        await watch(await wire.connect("monitor"), topics, show=shown.append, once=True)
    (state,) = shown
    assert [view.device for view in state.devices] == [f"d{number:02}" for number in range(40)]


async def test_once_on_an_empty_site_says_where_it_looked(wire: Wire, topics: Topics) -> None:
    with pytest.raises(BaseExceptionGroup) as raised:
        await watch(await wire.connect("monitor"), topics, show=lambda _: None, once=True)
    (error,) = raised.value.exceptions
    assert isinstance(error, SettingsError)
    assert topics.every_device("status") in str(error)


async def test_a_change_is_shown_and_so_is_a_broken_connection(wire: Wire, topics: Topics) -> None:
    agents, bus = await wire.connect("agents"), await wire.connect("monitor")
    shown: asyncio.Queue[SiteState] = asyncio.Queue()
    watching = asyncio.create_task(watch(bus, topics, show=shown.put_nowait, once=False))
    async with asyncio.timeout(30):
        assert (await shown.get()).is_empty
        await _announce(agents, topics, 2)
        while len((await shown.get()).devices) < 2:
            pass
        wire.cut("monitor")
        while not (await shown.get()).connection_lost:
            pass
        status = CoordinatorStatus(state="online", session="c", since_unix_s=time.time())
        await agents.publish(topics.coordinator_status, status.encode(), retain=True)
        wire.restore("monitor")
        while (await shown.get()).coordinator is None:
            pass
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_what_was_heard_last_is_shown_before_the_end() -> None:
    broker, topics = MemoryBroker(), Topics("default")
    shown: asyncio.Queue[SiteState] = asyncio.Queue()
    async with broker.connect("agents") as agents, broker.connect("monitor") as bus:
        watching = asyncio.create_task(
            watch(bus, topics, show=shown.put_nowait, from_the_start=True)
        )
        last = await shown.get()
        assert last.is_empty
        await _announce(agents, topics, 1)
        for _ in range(10):  # It is heard; to be shown, it would have to wait for a pause.
            await asyncio.sleep(0)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    while not shown.empty():
        last = shown.get_nowait()
    assert len(last.devices) == 1
