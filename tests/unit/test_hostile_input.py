"""What strangers and broken peers send: counted and dropped, in bounded memory, and no more."""

import asyncio
import os
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import numpy as np
import pytest

from device_agent.agent.agent import Agent
from device_agent.agent.trainer import Trainer
from device_agent.engines.open import open_engine
from device_agent.profiling.machine import measure_profile
from edge_coordinator.devices.channel import DeviceChannel, Tolerance
from edge_coordinator.devices.deadlines import Answer, Question
from runtime.bus.bus import Delivery
from runtime.bus.memory_bus import MemoryBroker, MemoryBus
from runtime.errors import MalformedMessageError
from runtime.protocol.events import Gathered
from runtime.wire.commands import (
    Assignment,
    Challenge,
    LinkMeasured,
    MeasureLink,
    NeedGraphs,
    Refused,
    Stop,
    decode_command,
    decode_reply,
)
from runtime.wire.frames import Frame, FrameKind, StepId, Tensor, body_bytes, specs_of
from runtime.wire.published import DeviceProfile, DeviceStatus
from tests.builders import random_samples
from tests.mutants import Mutant, Mutator
from tests.turn import (
    ASSIGNMENT,
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
    Peer,
    device_side,
    gradient_frame,
    request,
    sent,
    smashed_data,
    step_at,
)

NUM_CASES = int(os.environ.get("CPSL_FUZZ_CASES", "10000"))
"""Mutants in all; a long run takes 1,000,000."""
GRAPHS = (np.zeros(3000, np.uint8),) * 3

pytestmark = pytest.mark.timeout(60 + NUM_CASES / 200)


# Memory


class Meter:
    """The most memory that one message took, above what its size and its frame's allow."""

    def __init__(self) -> None:
        self.num_cases = 0
        self.peak_bytes = 0

    @contextmanager
    def one(self, mutant: Mutant, *, body_bytes: int) -> Iterator[None]:
        """Measure one message whose frame has so many bytes."""
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        yield
        taken = tracemalloc.get_traced_memory()[1] - before
        allowed = 2 * body_bytes + 4 * len(mutant.payload) + 65_536
        assert taken <= allowed, f"{mutant.damage}: {taken} bytes, {allowed} allowed"
        self.num_cases += 1
        self.peak_bytes = max(self.peak_bytes, taken)


@pytest.fixture
def meter() -> Iterator[Meter]:
    tracemalloc.start()
    yield Meter()
    tracemalloc.stop()


# The device


@asynccontextmanager
async def _agent() -> AsyncIterator[tuple[Agent, Peer]]:
    broker = MemoryBroker()
    samples = random_samples(40, (1, 28, 28), num_classes=10, seed=5)
    with ThreadPoolExecutor(1) as compute:
        agent = Agent(
            device="d0",
            bus=broker.connect("d0"),
            topics=TOPICS,
            status=STATUS,
            profile=partial(
                measure_profile, "d0", engine="torch", num_samples=40, sample_shape=(1, 28, 28)
            ),
            trainer=Trainer(
                "d0", samples, lambda job, shape: open_engine("torch", job, sample_shape=shape)
            ),
            compute=compute,
            chunk_bytes=CHUNK_BYTES,
        )
        peer = Peer(broker.connect("coordinator"))
        serving = asyncio.create_task(agent.serve())
        await peer.listen()
        try:
            yield agent, peer
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


Disturb = Callable[[Agent], None]


async def _take_turn(disturb: Disturb) -> list[Frame]:
    """A whole turn of one device, disturbed wherever it waits; its answers."""
    async with _agent() as (agent, peer):
        await peer.ask("command", ASSIGNMENT)
        assert await peer.reply() == READY
        disturb(agent)
        await peer.ask("command", JOIN)
        assert await peer.reply() == JOINED
        answers = []
        asked = [
            (Frame(FrameKind.MODEL, step_at(0), device_side()), FrameKind.SMASHED),
            (gradient_frame(0), FrameKind.SMASHED),
            (gradient_frame(1), FrameKind.WEIGHTS),
        ]
        for frame, answer in asked:
            leaf = frame.kind.name.lower()
            for original in sent(TOPICS.down("d0", leaf), frame)[::2]:
                agent._receive(_delivery(original))
            disturb(agent)
            await peer.ask(leaf, frame)
            # What is undone by a mutant that looks like a chunk of it is asked for again.
            await peer.ask(leaf, frame)
            answers.append(await peer.frame(answer))
        disturb(agent)
        return answers


def _delivery(message: Original | Mutant) -> Delivery:
    return Delivery(message.topic, memoryview(message.payload), retained=False)


def _to_the_device() -> list[Original]:
    command = TOPICS.down("d0", "command")
    return [
        *sent(command, ASSIGNMENT),
        *sent(command, JOIN),
        *sent(command, Stop(run=RUN)),
        *sent(command, Challenge(session="another")),
        *sent(TOPICS.status("d0"), STATUS),
        *sent(TOPICS.cluster_model(CLUSTER), Frame(FrameKind.MODEL, step_at(0), device_side())),
        *sent(TOPICS.down("d0", "model"), Frame(FrameKind.MODEL, step_at(0), device_side())),
        *sent(TOPICS.down("d0", "gradient"), gradient_frame(0)),
        *sent(TOPICS.down("d0", "gradient"), gradient_frame(1)),
        *sent(TOPICS.down("d0", "graphs"), Frame(FrameKind.GRAPHS, step_at(0), GRAPHS)),
    ]


def _commands_the_device(mutant: Mutant) -> bool:
    """Whether a damaged command is one that a coordinator might have sent, to be obeyed."""
    try:
        if mutant.topic == TOPICS.status("d0"):
            return DeviceStatus.decode(mutant.payload).session != STATUS.session
        message = decode_command(mutant.payload)
    except MalformedMessageError:
        return False
    return not isinstance(message, Challenge) and (
        isinstance(message, Assignment | MeasureLink) or message.run == RUN
    )


def _state_of(agent: Agent) -> dict[str, int]:
    kept = vars(agent._session).items()
    return {name: id(value) for name, value in kept if name != "num_stale"}


async def test_a_device_is_not_moved_by_mutants_and_its_turn_ends_in_the_same_bits(
    meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    source = Mutator(_to_the_device(), seed=1)
    body = body_bytes(specs_of(gradient_frame(0).tensors))

    def disturb(agent: Agent) -> None:
        before = _state_of(agent)
        for _ in range(NUM_CASES // 10):
            mutant = source.next()
            while _commands_the_device(mutant):
                mutant = source.next()
            with meter.one(mutant, body_bytes=body):
                agent._receive(_delivery(mutant))
            assert _state_of(agent) == before, mutant

    calm = await _take_turn(lambda _: None)
    disturbed = await _take_turn(disturb)
    assert _bits(disturbed) == _bits(calm)
    assert meter.num_cases == NUM_CASES // 10 * 5
    dropped = [record for record in caplog.records if "drops a message" in record.message]
    assert 0 < len(dropped) <= len({original.topic for original in _to_the_device()})


async def test_a_flood_of_challenges_starts_one_task_and_garbage_is_counted_by_kind() -> None:
    async with _agent() as (agent, _):
        command = TOPICS.down("d0", "command")
        before = len(asyncio.all_tasks())
        for _ in range(1000):
            agent._receive(_delivery(sent(command, Challenge(session="another"))[0]))
            agent._receive(_delivery(Original(command, b"garbage")))
            agent._receive(_delivery(Original(TOPICS.down("d0", "gradient"), b"garbage")))
        assert len(asyncio.all_tasks()) <= before + 1
        assert agent._dropped.counts == {"command": 1000, "gradient": 1000}


def _bits(frames: Sequence[Frame]) -> list[tuple[object, ...]]:
    return [(frame.kind, frame.step, *_raw(frame.tensors)) for frame in frames]


def _raw(tensors: Sequence[Tensor]) -> list[bytes]:
    return [tensor.tobytes() for tensor in tensors]


# The coordinator


def _to_the_coordinator() -> list[Original]:
    messages: list[Original] = []
    smashed = Frame(FrameKind.SMASHED, step_at(0), smashed_data(1))
    weights = Frame(FrameKind.WEIGHTS, step_at(1), device_side())
    for device in ("d0", "d1", "stranger"):
        reply, status = TOPICS.up(device, "reply"), TOPICS.status(device)
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
                return isinstance(reply, LinkMeasured) or reply.run == RUN
            case _:
                return False
    except MalformedMessageError:
        return False
    return True


def _state_of_conversation(channel: DeviceChannel) -> tuple[object, ...]:
    exchange = channel._replies.exchange
    return (
        dict(channel.registry.records),
        dict(channel.registry.refusals),
        [(device, *_state_of_session(channel, device)) for device in channel._peers],
        channel.changed.is_set(),
        exchange and list(exchange.gathering.missing),
        asyncio.all_tasks(),
    )


def _state_of_session(channel: DeviceChannel, device: str) -> tuple[object, ...]:
    session = channel._peers[device]
    return session.state, session.presence, id(session._pending), id(session._owed)


class Site:
    """Plays all devices to one coordinator's conversation."""

    def __init__(self, bus: MemoryBus, source: Mutator, meter: Meter) -> None:
        self.channel = DeviceChannel(
            bus,
            TOPICS,
            run=RUN,
            tolerance=Tolerance(60, 15, max_unusable=10 * NUM_CASES),
            chunk_bytes=CHUNK_BYTES,
            on_other=lambda _: None,
            on_connected=lambda: None,
        )
        self._source = source
        self._meter = meter

    def tell(self, originals: Sequence[Original]) -> None:
        """Say something as the devices do."""
        for original in originals:
            self.channel.inbound.receive(_delivery(original))

    def disturb(self) -> None:
        """Send a share of the mutants, of which each must leave everything as it was."""
        before = _state_of_conversation(self.channel)
        for _ in range(NUM_CASES // 6):
            mutant = self._source.next()
            while _tells_the_coordinator(mutant):
                mutant = self._source.next()
            with self._meter.one(mutant, body_bytes=body_bytes(SPECS[FrameKind.SMASHED])):
                self.channel.inbound.receive(_delivery(mutant))
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
            self.tell(sent(TOPICS.up(device, "reply"), JOINED))
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
