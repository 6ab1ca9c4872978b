"""What an agent makes of an upload that is slow, or that its broker did not take."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import TypeVar

import numpy as np
import pytest

from device_agent.agent.endpoint import DeviceEndpoint
from device_agent.agent.publisher import Publisher
from device_agent.agent.uploads import SendError, TurnMeter, Uploads
from profiles.link_estimate import MIN_TELLING_BYTES
from runtime.bus.bus import BusEvent, Delivery
from runtime.bus.memory_bus import MemoryBroker, MemoryBus
from runtime.errors import BusError
from runtime.wire.chunks.questions import SendAgain
from runtime.wire.chunks.transfer import SharedLine
from runtime.wire.commands import Join, Refused
from runtime.wire.frames import Frame, FrameKind, body_bytes, decode_chunk
from runtime.wire.published import DeviceMetrics
from tests.serving import serving_agent
from tests.turn import (
    ASSIGNMENT,
    CHUNK_BYTES,
    CLUSTER,
    JOIN,
    PROFILE,
    ROUND,
    RUN,
    SPECS,
    STATUS,
    TOPICS,
    Peer,
    device_side,
    gradient_frame,
    step_at,
)

Answer = TypeVar("Answer")

WHOLE = 10_000_000
"""Bytes of a chunk that any frame here fits into."""


class PoorUplink:
    """A bus whose uploads of one kind wait until they may go, or fail a few times."""

    def __init__(self, inner: MemoryBus, topic: str) -> None:
        self._inner = inner
        self._topic = topic
        self.may_go = asyncio.Event()
        self.is_held = asyncio.Event()
        self.num_failures = 0
        self.is_acknowledgement_held = False
        """Whether they go at once, and it is the broker that keeps silent until they may."""

    @property
    def max_payload_bytes(self) -> int:
        return self._inner.max_payload_bytes

    async def publish(
        self, topic: str, payload: bytes | bytearray | memoryview, *, retain: bool
    ) -> None:
        if topic == self._topic and self.is_acknowledgement_held:
            await self._inner.publish(topic, payload, retain=retain)
            await self.may_go.wait()
            return
        if topic == self._topic:
            self.is_held.set()
            await self.may_go.wait()
            if self.num_failures:
                self.num_failures -= 1
                raise BusError("the connection broke 4 times")
        await self._inner.publish(topic, payload, retain=retain)

    async def subscribe(self, topic_filter: str) -> None:
        await self._inner.subscribe(topic_filter)

    async def unsubscribe(self, topic_filter: str) -> None:
        await self._inner.unsubscribe(topic_filter)

    def events(self) -> AsyncIterator[BusEvent]:
        return self._inner.events()


@asynccontextmanager
async def _agent(
    held: FrameKind, chunk_bytes: int = WHOLE
) -> AsyncIterator[tuple[PoorUplink, Peer, MemoryBus]]:
    broker = MemoryBroker()
    bus = PoorUplink(broker.connect("d0"), TOPICS.up("d0", held.name.lower()))
    watcher = broker.connect("watcher")
    await watcher.subscribe(TOPICS.metrics("d0"))
    async with serving_agent(bus, broker, chunk_bytes=chunk_bytes) as (_, peer):
        await peer.ask("command", ASSIGNMENT)
        await peer.reply()
        yield bus, peer, watcher


def _join(round_: int) -> Join:
    return JOIN.model_copy(update={"round": round_, "local_epochs": 1})


async def _train_until_upload(peer: Peer, round_: int) -> None:
    """Have the device take a turn of one local epoch, up to its last answer."""
    step = replace(step_at(0), round=round_)
    await peer.ask("command", _join(round_))
    await peer.reply()
    await peer.ask("model", Frame(FrameKind.MODEL, step, device_side()))
    await peer.frame(FrameKind.SMASHED)
    await peer.ask("gradient", replace(gradient_frame(0), step=step))


async def _micro_batches(watcher: MemoryBus, count: int) -> list[int]:
    """Those of the next frames of smashed data, each of one chunk, in their order."""
    parts: list[int] = []
    async for event in watcher.events():
        if isinstance(event, Delivery) and event.topic == TOPICS.up("d0", "smashed"):
            parts.append(decode_chunk(event.payload).step.micro_batch)
        if len(parts) == count:
            break
    return parts


async def _ask_until_it_comes(peer: Peer, answer: Callable[[], Awaitable[Answer]]) -> Answer:
    """As a coordinator does whose answer is overdue."""
    lost = {"run": RUN, "round": ROUND, "cluster": CLUSTER, "epoch": 0, "answer": "weights"}
    while True:
        await peer.ask("command", SendAgain.model_validate(lost | {"chunks": ()}))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                return await answer()


async def _metrics(watcher: MemoryBus) -> DeviceMetrics:
    async for event in watcher.events():
        if isinstance(event, Delivery):
            return DeviceMetrics.decode(event.payload)
    raise AssertionError


async def test_an_upload_that_ends_in_the_next_turn_is_not_counted_there() -> None:
    async with _agent(FrameKind.WEIGHTS) as (bus, peer, watcher):
        await _train_until_upload(peer, ROUND)
        await bus.is_held.wait()
        await peer.ask("command", _join(ROUND + 1))
        await peer.reply()
        bus.may_go.set()
        await peer.frame(FrameKind.WEIGHTS)  # Too late.
        await _train_until_upload(peer, ROUND + 1)
        await peer.frame(FrameKind.WEIGHTS)
        metrics = await _metrics(watcher)
    assert metrics.round == ROUND + 1
    assert metrics.forward_s > 0
    once = sum(body_bytes(SPECS[kind]) for kind in (FrameKind.SMASHED, FrameKind.WEIGHTS))
    assert once <= metrics.up_bytes < 1.02 * once


@pytest.mark.parametrize("chunk_bytes", [WHOLE, CHUNK_BYTES])
async def test_an_upload_that_fails_goes_again_when_it_is_asked_for_again(
    chunk_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with _agent(FrameKind.WEIGHTS, chunk_bytes) as (bus, peer, watcher):
        bus.num_failures = 1
        bus.may_go.set()
        await _train_until_upload(peer, ROUND)
        frame = await _ask_until_it_comes(peer, partial(peer.frame, FrameKind.WEIGHTS))
        assert (await _metrics(watcher)).round == ROUND
    assert frame.step == step_at(0)
    assert [record.getMessage() for record in caplog.records] == [
        "d0 could not send its weights: the connection broke 4 times"
    ]


async def test_a_device_whose_broker_takes_nothing_of_it_says_why() -> None:
    async with _agent(FrameKind.WEIGHTS) as (bus, peer, _):
        bus.num_failures = 2
        bus.may_go.set()
        await _train_until_upload(peer, ROUND)
        refused = await _ask_until_it_comes(peer, peer.reply)
    assert isinstance(refused, Refused)
    assert refused.reason == "could not send its weights: the connection broke 4 times"


async def test_micro_batches_go_up_whether_or_not_the_ones_before_are_acknowledged() -> None:
    async with _agent(FrameKind.SMASHED) as (bus, peer, watcher):
        await watcher.subscribe(TOPICS.up("d0", "smashed"))
        bus.is_acknowledgement_held = True
        join = _join(ROUND).model_copy(update={"micro_batches": 8})
        await peer.ask("command", join)
        await peer.reply()
        await peer.ask("model", Frame(FrameKind.MODEL, step_at(0), device_side()))
        assert await _micro_batches(watcher, 4) == [0, 1, 2, 3]
        assert not bus.may_go.is_set()


async def test_uploads_at_the_same_time_count_once_and_one_behind_another_tells_no_rate() -> None:
    broker = MemoryBroker()
    bus = PoorUplink(broker.connect("d0"), TOPICS.up("d0", "smashed"))
    endpoint = DeviceEndpoint("d0", bus, TOPICS, WHOLE)
    profile = Publisher(endpoint, STATUS, lambda: PROFILE).profile
    uploads, turn = Uploads(endpoint, profile, SharedLine()), TurnMeter(device="d0")
    samples = np.zeros(MIN_TELLING_BYTES, np.uint8)
    frames = [Frame(FrameKind.SMASHED, step_at(0).part(part), (samples,)) for part in range(4)]
    start_s = perf_counter()
    sending = [asyncio.create_task(uploads.send(frame, turn, None)) for frame in frames]
    await bus.is_held.wait()
    bus.may_go.set()
    assert all(await asyncio.gather(*sending))
    seconds = turn.metrics(_join(ROUND), forward_s=0.0, backward_s=0.0).upload_s
    assert 0 < seconds <= perf_counter() - start_s
    assert profile.link.num_transfers == 1
    await uploads.send(frames[0], turn, None)
    assert profile.link.num_transfers == 2


async def test_frames_that_fail_while_they_are_under_way_together_count_as_one_failure() -> None:
    broker = MemoryBroker()
    bus = PoorUplink(broker.connect("d0"), TOPICS.up("d0", "smashed"))
    endpoint = DeviceEndpoint("d0", bus, TOPICS, WHOLE)
    profile = Publisher(endpoint, STATUS, lambda: PROFILE).profile
    uploads, turn = Uploads(endpoint, profile, SharedLine()), TurnMeter(device="d0")
    bus.num_failures = 3
    frames = [Frame(FrameKind.SMASHED, step_at(0).part(part), ()) for part in range(2)]
    sending = [asyncio.create_task(uploads.send(frame, turn, None)) for frame in frames]
    await bus.is_held.wait()
    bus.may_go.set()
    assert await asyncio.gather(*sending) == [False, False]
    with pytest.raises(SendError, match="the connection broke 4 times"):
        await uploads.send(frames[0], turn, None)
