"""What strangers and broken devices send: counted and dropped, in bounded memory, and no more."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence

import pytest

from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.devices.deadlines import Answer, Question
from edge_coordinator.devices.tolerance import Tolerance
from runtime.bus.memory_bus import MemoryBroker, MemoryBus
from runtime.errors import MalformedMessageError
from runtime.protocol.events import Gathered
from runtime.wire.commands import LinkMeasured, NeedGraphs, Refused
from runtime.wire.control import decode_reply
from runtime.wire.frames import Frame, FrameKind, StepId, Tensor, body_bytes
from runtime.wire.published import DeviceProfile, DeviceStatus
from runtime.wire.versions import UnknownCommand
from tests.hostile.messages import NUM_CASES, Meter, delivered, traced_memory
from tests.hostile.mutants import Mutant, Mutator
from tests.turn import (
    CHUNK_BYTES,
    CLUSTER,
    JOIN,
    JOINED,
    PROFILE,
    READY,
    ROUND,
    RUN,
    SPECS,
    STATUS,
    TOPICS,
    Original,
    device_side,
    request,
    sent,
    smashed_data,
    step_at,
)

pytestmark = pytest.mark.timeout(60 + NUM_CASES / 200)


@pytest.fixture
def meter() -> Iterator[Meter]:
    with traced_memory() as meter:
        yield meter


def _raw(tensors: Sequence[Tensor]) -> list[bytes]:
    return [tensor.tobytes() for tensor in tensors]


def _to_the_coordinator() -> list[Original]:
    messages: list[Original] = []
    smashed = Frame(FrameKind.SMASHED, step_at(0), smashed_data(1))
    weights = Frame(FrameKind.WEIGHTS, step_at(1), device_side())
    for device in ("d0", "d1", "stranger"):
        reply, status = TOPICS.reply(device), TOPICS.status(device)
        messages += [
            *sent(status, STATUS),
            *sent(TOPICS.profile(device), PROFILE),
            *sent(reply, READY),
            *sent(reply, JOINED),
            *sent(reply, NeedGraphs(run=RUN, round=ROUND, cluster=CLUSTER, digest="ab" * 32)),
            *sent(reply, Refused(run=RUN, reason="no room")),
            *sent(TOPICS.up(device, "smashed"), smashed),
            *sent(TOPICS.up(device, "weights"), weights),
        ]
    return messages


def _tells_the_coordinator(mutant: Mutant) -> bool:
    """Whether damage made a message that a device might have sent, to be believed."""
    try:
        match mutant.topic.rsplit("/", 1)[1]:
            case "status":
                DeviceStatus.decode(mutant.payload)
            case "profile":
                DeviceProfile.decode(mutant.payload)
            case "reply":
                reply = decode_reply(mutant.payload)
                return isinstance(reply, LinkMeasured | UnknownCommand) or reply.run == RUN
            case _:
                return False
    except MalformedMessageError:
        return False
    return True


def _state_of_conversation(channel: DeviceChannel) -> tuple[object, ...]:
    exchange = channel.replies.exchange
    return (
        dict(channel.registry.records),
        dict(channel.registry.refusals),
        [(device, *_state_of_session(channel, device)) for device in channel.peers],
        channel.changed.is_set(),
        exchange and list(exchange.outstanding),
        asyncio.all_tasks(),
    )


def _state_of_session(channel: DeviceChannel, device: str) -> tuple[object, ...]:
    session = channel.peers[device]
    return session.state, session.presence, session.why_busy


class Site:
    """Plays all devices to one coordinator's conversation."""

    def __init__(self, bus: MemoryBus, source: Mutator, meter: Meter) -> None:
        self.channel = DeviceChannel(
            bus,
            TOPICS,
            run=RUN,
            tolerance=Tolerance(60, 15, max_unusable=10 * NUM_CASES),
            chunk_bytes=CHUNK_BYTES,
        )
        self._source = source
        self._meter = meter

    def tell(self, originals: Sequence[Original]) -> None:
        """Say something as the devices do."""
        for original in originals:
            self.channel.inbound.receive(delivered(original))

    def disturb(self) -> None:
        """Send a share of the mutants, of which each must leave everything as it was."""
        before = _state_of_conversation(self.channel)
        for _ in range(NUM_CASES // 6):
            mutant = self._source.next()
            while _tells_the_coordinator(mutant):
                mutant = self._source.next()
            with self._meter.one(mutant, body_bytes=body_bytes(SPECS[FrameKind.SMASHED])):
                self.channel.inbound.receive(delivered(mutant))
            assert _state_of_conversation(self.channel) == before, mutant

    async def join(self) -> None:
        """Two devices arrive; both are asked to join, and one does after a while."""
        for device in ("d0", "d1"):
            self.tell(sent(TOPICS.status(device), STATUS))
            self.channel.registry.note_ready(device, READY)
        joining = [asyncio.create_task(self.channel.join(d, JOIN)) for d in ("d0", "d1")]
        await asyncio.sleep(0)
        self.disturb()
        for device in ("d0", "d1"):
            self.tell(sent(TOPICS.reply(device), JOINED))
        await asyncio.gather(*joining)

    async def gather(
        self, kind: FrameKind, step: StepId, answers: Mapping[str, tuple[Tensor, ...]]
    ) -> Gathered:
        """Two devices are asked for a frame; the first half of one is there early."""
        requests = dict.fromkeys(answers, request(kind, step))
        exchange = self.channel.exchange(requests, Question(Answer.FIRST, {}))
        chunks = {
            device: sent(TOPICS.up(device, kind.name.lower()), Frame(kind, step, tensors))
            for device, tensors in answers.items()
        }
        self.tell(chunks["d1"][::2])
        self.disturb()
        for device in ("d1", "d0", "d1", "d0"):  # Twice, as on the device.
            self.tell(chunks[device])
        return await exchange.gathered()


async def test_the_coordinator_is_not_moved_by_mutants_and_gathers_the_same_bits(
    meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    source = Mutator(_to_the_coordinator(), seed=2)
    async with MemoryBroker().connect("coordinator") as bus:
        site = Site(bus, source, meter)
        await site.join()
        for kind, step, answers in (
            (FrameKind.SMASHED, step_at(0), {"d0": smashed_data(10), "d1": smashed_data(11)}),
            (FrameKind.WEIGHTS, step_at(1), {"d0": device_side(), "d1": device_side()}),
        ):
            gathered = await site.gather(kind, step, answers)
            assert list(gathered.answers) == ["d0", "d1"]
            assert not gathered.lost
            for device, tensors in answers.items():
                assert _raw(gathered.answers[device]) == _raw(tensors)
    assert meter.num_cases == NUM_CASES // 6 * 3
    dropped = [record for record in caplog.records if "dropped a message" in record.message]
    assert 0 < len(dropped) <= 3
