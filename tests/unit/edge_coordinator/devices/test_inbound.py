"""What the coordinator keeps of devices that come and go."""

import pytest

from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.devices.deadlines import Answer, Question
from edge_coordinator.devices.inbound import MAX_TOLD, DropCounts
from edge_coordinator.devices.tolerance import Tolerance
from runtime.bus.bus import Delivery
from runtime.bus.memory_bus import MemoryBroker, MemoryBus
from runtime.errors import MalformedMessageError
from runtime.wire.fields import Message
from runtime.wire.frames import Frame, FrameKind
from tests.serving import join_all
from tests.turn import CHUNK_BYTES, RUN, STATUS, TOPICS, request, sent, smashed_data, step_at


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
        on_other=lambda _: None,
        on_connected=lambda: None,
    )


async def test_half_a_frame_is_not_kept_for_a_device_that_has_gone() -> None:
    kind, step = FrameKind.SMASHED, step_at(0)
    async with MemoryBroker().connect("coordinator") as bus:
        channel = _channel(bus)
        await join_all(channel, ["d0"])
        exchange = channel.exchange({"d0": request(kind, step)}, Question(Answer.FIRST, {}))
        frame = Frame(kind, step, smashed_data(1))
        _tell(channel, TOPICS.up("d0", "smashed"), frame, half=True)
        frames = channel._peers["d0"].frames
        assert not frames.is_empty
        restarted = STATUS.model_copy(update={"session": "two"})
        _tell(channel, TOPICS.status("d0"), restarted, half=False)
        assert list((await exchange.gathered()).lost) == ["d0"]
        assert frames.is_empty


def test_made_up_senders_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    dropped = DropCounts(max_unusable=10)
    for number in range(5 * MAX_TOLD):
        dropped.note_unusable(f"ghost-{number}", "status", MalformedMessageError("no status"))
    assert len(caplog.records) == MAX_TOLD + 1
    assert dropped.counts.total() == 5 * MAX_TOLD
