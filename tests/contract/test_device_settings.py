"""Settings by a retained topic, on every kind of broker: applied, answered, kept, taken back."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from device_agent.agent.agent import Agent
from device_agent.agent.desired import DesiredSettings, Started
from device_agent.agent.endpoint import DeviceEndpoint
from device_agent.agent.hosting import Hosting
from device_agent.agent.trainer import Trainer
from device_agent.engines.open import open_engine
from edge_coordinator.monitor.asking import device_of, set_device, site_of
from edge_coordinator.monitor.state import DeviceView
from runtime.bus.bus import Bus, Delivery
from runtime.wire.ownership import new_session
from runtime.wire.topics import Topics
from tests.contract.conftest import ClosableBus, Wire
from tests.noise import random_samples
from tests.turn import PROFILE, STATUS

STARTED = Started(threads=2, min_cut="1")


@asynccontextmanager
async def _agent(bus: Bus, topics: Topics) -> AsyncIterator[DesiredSettings]:
    """Serve d0 there, as a new session each time."""
    desired = DesiredSettings("d0", topics, STARTED)
    samples = random_samples(20, (1, 28, 28), num_classes=10, seed=5)
    with ThreadPoolExecutor(1) as compute:
        agent = Agent(
            endpoint=DeviceEndpoint("d0", bus, topics, chunk_bytes=1000),
            status=STATUS.model_copy(update={"session": new_session()}),
            profile=lambda: PROFILE.model_copy(update={"settings": desired.report}),
            trainer=Trainer(
                "d0", samples, lambda job, shape: open_engine("torch", job, sample_shape=shape)
            ),
            compute=compute,
            hosting=Hosting(desired=desired),
        )
        serving = asyncio.create_task(agent.serve())
        try:
            yield desired
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await agent.leave()


async def _seen(wire: Wire, topics: Topics, *, settings: dict[str, str]) -> DeviceView:
    """Watch d0 until its profile says that these settings hold."""
    bus = await wire.connect(f"watch-{uuid.uuid4().hex[:4]}")
    try:
        while True:
            view = device_of(await site_of(bus, topics), "d0")
            report = view.profile.settings if view.profile else None
            if (report.applied if report else {}) == settings:
                return view
    finally:
        await bus.close()


async def _people(wire: Wire) -> ClosableBus:
    return await wire.connect(f"people-{uuid.uuid4().hex[:4]}")


async def test_settings_hold_at_once_after_a_restart_and_until_they_are_taken_back(
    wire: Wire,
) -> None:
    topics = Topics(f"site-{uuid.uuid4().hex[:8]}")
    wanted: dict[str, str | None] = {"threads": "1", "min_cut": "3", "color": "red"}
    first = await wire.connect("first")
    async with asyncio.timeout(30), _agent(first, topics):
        await _seen(wire, topics, settings={})
        report = await set_device(await _people(wire), topics, "d0", wanted, by="anna")
        assert report is not None
        assert (report.by, report.applied) == ("anna", {"threads": "1", "min_cut": "3"})
        assert list(report.refused) == ["color"]
    await first.close()
    again = await wire.connect("again")
    async with asyncio.timeout(30), _agent(again, topics) as desired:
        view = await _seen(wire, topics, settings=report.applied)
        assert view.wanted is not None
        people = await _people(wire)
        await people.subscribe(topics.profile("d0"))
        wire.cut("again")
        wire.restore("again")
        async for event in people.events():
            if isinstance(event, Delivery) and not event.retained:
                break  # It has told again what it is, and heard what is retained.
        await site_of(await _people(wire), topics)
        assert desired.report is not None
        assert desired.report.applied == report.applied
        wire.cut("again")
        await (await _people(wire)).publish(topics.settings("d0"), b"", retain=True)
        wire.restore("again")
        view = await _seen(wire, topics, settings={})
        assert view.wanted is None
        assert desired.report is not None
        assert not desired.report.applied
    offline = await set_device(await _people(wire), topics, "d0", {"threads": "2"}, by="anna")
    assert offline is None
