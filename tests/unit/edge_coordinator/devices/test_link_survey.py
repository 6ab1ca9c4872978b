"""Whose links are measured when: one device of a process goes first, then the others at once."""

import asyncio
from contextlib import AsyncExitStack

from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.devices.link_survey import LinkSurvey
from edge_coordinator.devices.tolerance import Tolerance
from runtime.bus.bus import Bus, Delivery
from runtime.bus.memory_bus import MemoryBroker
from runtime.protocol.coordinator_events import Excluded
from runtime.wire.commands import LinkMeasured
from runtime.wire.commands import MeasureLink as Request
from runtime.wire.control import decode_command
from tests.builders import make_job
from tests.noise import shards
from tests.turn import CHUNK_BYTES, READY, RUN, STATUS, TOPICS

PROCESSES = {"d0": "one", "d1": "one", "d2": "one", "d3": "two"}


async def _asked(bus: Bus, device: str, order: list[str]) -> Request:
    """Wait until a device is asked to measure."""
    async for event in bus.events():
        if isinstance(event, Delivery):
            command = decode_command(event.payload)
            assert isinstance(command, Request)
            order.append(device)
            return command
    raise AssertionError


async def _answer(bus: Bus, device: str, request: Request) -> None:
    answer = LinkMeasured(probe=request.probe, link=None, reason="a test")
    await bus.publish(TOPICS.reply(device), answer.encode(), retain=False)


async def test_one_device_of_each_process_is_asked_before_its_others() -> None:
    broker, order = MemoryBroker(), list[str]()
    job, _ = make_job(shards([4] * 4, (1, 28, 28)), {})
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(broker.connect("coordinator"))
        channel = DeviceChannel(
            bus,
            TOPICS,
            run=RUN,
            tolerance=Tolerance(60, 15, max_unusable=10),
            chunk_bytes=CHUNK_BYTES,
        )
        await channel.open()
        buses = {}
        for device, process in PROCESSES.items():
            buses[device] = await stack.enter_async_context(broker.connect(device))
            await buses[device].subscribe(TOPICS.command(device))
            status = STATUS.model_copy(update={"process": process})
            online = Delivery(TOPICS.status(device), memoryview(status.encode()), retained=False)
            channel.inbound.receive(online)
            channel.registry.note_ready(device, READY)
        survey = LinkSurvey(job, channel)
        serving = [
            asyncio.create_task(channel.listen(bus.events())),
            asyncio.create_task(survey.serve()),
        ]
        assert survey.survey() == list(PROCESSES)
        assert survey.survey() == []
        waiting = asyncio.create_task(survey.until_measured(list(PROCESSES)))
        for first in ("d0", "d3"):
            await _answer(buses[first], first, await _asked(buses[first], first, order))
        for other in ("d1", "d2"):  # Both are asked before either answers.
            await _asked(buses[other], other, order)
        assert order == ["d0", "d3", "d1", "d2"]
        for other in ("d1", "d2"):
            channel.peers.tell(other, Excluded("went offline"))
        assert await waiting == list(PROCESSES)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
