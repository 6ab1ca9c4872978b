"""What strangers and broken peers send to a device: counted and dropped, in bounded memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest

from device_agent.agent.agent import Agent
from runtime.bus.memory_bus import MemoryBroker
from runtime.errors import MalformedMessageError
from runtime.wire.chunks.questions import NotInTurn
from runtime.wire.commands import Assignment, Challenge, MeasureLink, Stop
from runtime.wire.control import decode_command
from runtime.wire.frames import Frame, FrameKind, body_bytes, specs_of
from runtime.wire.published import DeviceStatus
from runtime.wire.versions import Incompatible, UnknownCommand
from tests.hostile.messages import NUM_CASES, Meter, delivered, traced_memory
from tests.hostile.mutants import Mutant, Mutator
from tests.serving import serving_agent
from tests.turn import (
    ASSIGNMENT,
    CHUNK_BYTES,
    CLUSTER,
    JOIN,
    JOINED,
    READY,
    RUN,
    STATUS,
    TOPICS,
    Original,
    Peer,
    device_side,
    gradient_frame,
    sent,
    step_at,
)

GRAPHS = (np.zeros(3000, np.uint8),) * 3

pytestmark = pytest.mark.timeout(60 + NUM_CASES / 200)


@pytest.fixture
def meter() -> Iterator[Meter]:
    with traced_memory() as meter:
        yield meter


@asynccontextmanager
async def _agent() -> AsyncIterator[tuple[Agent, Peer]]:
    broker = MemoryBroker()
    async with serving_agent(broker.connect("d0"), broker, chunk_bytes=CHUNK_BYTES) as served:
        yield served


async def _said(peer: Peer) -> object:
    """The next reply but those to commands that nobody knows."""
    while isinstance(reply := await peer.reply(), NotInTurn | UnknownCommand):
        pass
    return reply


Disturb = Callable[[Agent], None]


async def _take_turn(disturb: Disturb) -> list[Frame]:
    """A whole turn of one device, disturbed wherever it waits; its answers."""
    async with _agent() as (agent, peer):
        await peer.ask("command", ASSIGNMENT)
        assert await peer.reply() == READY
        disturb(agent)
        await peer.ask("command", JOIN)
        assert await _said(peer) == JOINED
        answers = []
        asked = [
            (Frame(FrameKind.MODEL, step_at(0), device_side()), FrameKind.SMASHED),
            (gradient_frame(0), FrameKind.SMASHED),
            (gradient_frame(1), FrameKind.WEIGHTS),
        ]
        for frame, answer in asked:
            leaf = frame.kind.name.lower()
            for original in sent(TOPICS.down("d0", leaf), frame)[::2]:
                agent.receive(delivered(original))
            disturb(agent)
            await peer.ask(leaf, frame)
            # What is undone by a mutant that looks like a chunk of it is asked for again.
            await peer.ask(leaf, frame)
            answers.append(await peer.frame(answer))
        disturb(agent)
        return answers


def _to_the_device() -> list[Original]:
    command = TOPICS.command("d0")
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
        isinstance(message, Assignment | MeasureLink | Incompatible) or message.run == RUN
    )


def _state_of(agent: Agent) -> dict[str, int]:
    kept = vars(agent.session).items()
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
                agent.receive(delivered(mutant))
            assert _state_of(agent) == before, mutant

    calm = await _take_turn(lambda _: None)
    disturbed = await _take_turn(disturb)
    assert _bits(disturbed) == _bits(calm)
    assert meter.num_cases == NUM_CASES // 10 * 5
    dropped = [record for record in caplog.records if "drops a message" in record.message]
    assert 0 < len(dropped) <= len({original.topic for original in _to_the_device()})


async def test_a_flood_of_challenges_starts_one_task_and_garbage_is_counted_by_kind() -> None:
    async with _agent() as (agent, _):
        command = TOPICS.command("d0")
        before = len(asyncio.all_tasks())
        for _ in range(1000):
            agent.receive(delivered(sent(command, Challenge(session="another"))[0]))
            agent.receive(delivered(Original(command, b"garbage")))
            agent.receive(delivered(Original(TOPICS.down("d0", "gradient"), b"garbage")))
        assert len(asyncio.all_tasks()) <= before + 1
        assert agent.dropped.counts == {"command": 1000, "gradient": 1000}


def _bits(frames: Sequence[Frame]) -> list[tuple[object, ...]]:
    return [
        (frame.kind, frame.step, *(tensor.tobytes() for tensor in frame.tensors))
        for frame in frames
    ]
