"""What the coordinator keeps of devices that come and go."""

from edge_coordinator.devices.channel import DeviceChannel, Tolerance
from edge_coordinator.devices.deadlines import Answer, Question
from runtime.bus.bus import Delivery
from runtime.bus.memory_bus import MemoryBroker
from runtime.protocol.gathering import Gathering
from runtime.wire.fields import Message
from runtime.wire.frames import Frame, FrameKind
from tests.turn import CHUNK_BYTES, READY, RUN, SPECS, STATUS, TOPICS, sent, smashed_data, step_at


def _tell(channel: DeviceChannel, topic: str, what: Message | Frame, *, half: bool) -> None:
    for original in sent(topic, what)[:: 2 if half else 1]:
        delivery = Delivery(original.topic, memoryview(original.payload), retained=False)
        channel.inbound.receive(delivery)


async def test_half_a_frame_is_not_kept_for_a_device_that_has_gone() -> None:
    async def ask_again(_: str) -> None:
        raise AssertionError

    kind, step = FrameKind.SMASHED, step_at(0)
    async with MemoryBroker().connect("coordinator") as bus:
        channel = DeviceChannel(
            bus,
            TOPICS,
            run=RUN,
            tolerance=Tolerance(60, 15, max_unusable=10),
            chunk_bytes=CHUNK_BYTES,
            on_other=lambda _: None,
            on_connected=lambda: None,
        )
        _tell(channel, TOPICS.status("d0"), STATUS, half=False)
        channel.registry.note_ready("d0", READY)
        gathering = Gathering(kind, step, {"d0": SPECS[kind]})
        exchange = channel.exchange(gathering, ask_again, Question(Answer.FIRST, {}))
        frame = Frame(kind, step, smashed_data(1))
        _tell(channel, TOPICS.up("d0", "smashed"), frame, half=True)
        assert channel.inbound._inboxes
        restarted = STATUS.model_copy(update={"session": "two"})
        _tell(channel, TOPICS.status("d0"), restarted, half=False)
        assert list((await exchange.gathered()).lost) == ["d0"]
        assert not channel.inbound._inboxes
