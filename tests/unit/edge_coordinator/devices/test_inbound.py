"""What the coordinator keeps of devices that come and go."""

import asyncio

import pytest

from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.devices.deadlines import Answer, Question
from edge_coordinator.devices.inbound import MAX_TOLD, DropCounts
from edge_coordinator.devices.registry import Change, Registry
from edge_coordinator.devices.requests import DeviceGoneError
from edge_coordinator.devices.tolerance import Tolerance
from runtime.bus.bus import Delivery
from runtime.bus.memory_bus import MemoryBroker, MemoryBus
from runtime.errors import MalformedMessageError
from runtime.wire.fields import Message
from runtime.wire.frames import Frame, FrameKind
from tests.serving import join_all
from tests.turn import (
    ASSIGNMENT,
    CHUNK_BYTES,
    JOIN,
    PROFILE,
    READY,
    RUN,
    STATUS,
    TOPICS,
    request,
    sent,
    smashed_data,
    step_at,
)


def _tell(channel: DeviceChannel, topic: str, what: Message | Frame, *, half: bool) -> None:
    for original in sent(topic, what)[:: 2 if half else 1]:
        delivery = Delivery(original.topic, memoryview(original.payload), retained=False)
        channel.inbound.receive(delivery)


def _channel(bus: MemoryBus) -> DeviceChannel:
    return DeviceChannel(
        bus,
        TOPICS,
        run=RUN,
        tolerance=Tolerance(60, 15, max_unusable=10),
        chunk_bytes=CHUNK_BYTES,
    )


async def test_half_a_frame_is_not_kept_for_a_device_that_has_gone() -> None:
    kind, step = FrameKind.SMASHED, step_at(0)
    async with MemoryBroker().connect("coordinator") as bus:
        channel = _channel(bus)
        await join_all(channel, ["d0"])
        exchange = channel.exchange({"d0": request(kind, step)}, Question(Answer.FIRST, {}))
        frame = Frame(kind, step, smashed_data(1))
        _tell(channel, TOPICS.up("d0", "smashed"), frame, half=True)
        frames = channel.peers["d0"].frames
        assert not frames.is_empty
        restarted = STATUS.model_copy(update={"session": "two"})
        _tell(channel, TOPICS.status("d0"), restarted, half=False)
        assert list((await exchange.gathered()).lost) == ["d0"]
        assert frames.is_empty


async def test_a_turn_that_begins_as_a_device_comes_back_takes_no_answer_from_its_assignment() -> (
    None
):
    async with MemoryBroker().connect("coordinator") as bus:
        channel = _channel(bus)
        await join_all(channel, ["d0"])
        restarted = STATUS.model_copy(update={"session": "two"})
        _tell(channel, TOPICS.status("d0"), restarted, half=False)
        with pytest.raises(DeviceGoneError):
            await channel.join("d0", JOIN)
        assigning = asyncio.create_task(channel.assign("d0", ASSIGNMENT))
        await asyncio.sleep(0)
        with pytest.raises(DeviceGoneError):
            await channel.join("d0", JOIN)
        _tell(channel, TOPICS.reply("d0"), READY, half=False)
        await asyncio.wait_for(assigning, 1.0)
        assert channel.registry.is_ready("d0")


def test_a_device_whose_session_is_there_again_is_known_as_before() -> None:
    registry = Registry()
    registry.note_status("d0", STATUS)
    registry.note_profile("d0", PROFILE)
    registry.note_ready("d0", READY)
    for number in range(3):
        forged = STATUS.model_copy(update={"session": f"forged {number}", "since_unix_s": 0.0})
        assert registry.note_status("d0", forged) is Change.ARRIVED
        assert not registry.is_ready("d0")
        assert registry.note_status("d0", STATUS) is Change.ARRIVED
        assert registry.is_ready("d0")
        assert registry.records["d0"].profile == PROFILE
    registry.note_status("d0", STATUS.model_copy(update={"session": "two"}))
    registry.note_status("d0", STATUS.model_copy(update={"session": "three"}))
    registry.note_status("d0", STATUS)
    assert not registry.is_ready("d0")


def test_made_up_senders_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    dropped = DropCounts(max_unusable=10)
    for number in range(5 * MAX_TOLD):
        dropped.note_unusable(f"ghost-{number}", "status", MalformedMessageError("no status"))
    assert len(caplog.records) == MAX_TOLD + 1
    assert dropped.counts.total() == 5 * MAX_TOLD
