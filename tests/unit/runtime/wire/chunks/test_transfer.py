"""Frames of one window: each follows at once, in order, and few bytes of all are unacknowledged."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from device_agent.emulation.bus import EmulatedBus
from edge_coordinator.devices.outbound import Outbound
from profiles.emulation import MESSAGE_OVERHEAD_BYTES, DeviceClass
from runtime.bus.bus import BusEvent
from runtime.bus.memory_bus import MemoryBroker, MemoryBus
from runtime.errors import BusError
from runtime.wire.chunks.transfer import MAX_UNACKNOWLEDGED_CHUNKS, SendWindow, send_frame
from runtime.wire.frames import CHUNK_HEADER, Frame, FrameKind, decode_chunk, encode_chunks
from tests.turn import TOPICS, step_at

CHUNK_BYTES = 1_000
TOPIC = TOPICS.down("d0", "gradient")


class SlowAcknowledgements:
    """A bus that hands messages over at once, and acknowledges one for each `acknowledge`."""

    def __init__(self, inner: MemoryBus) -> None:
        self._inner = inner
        self._allowed = asyncio.Semaphore(0)
        self.handed_over: list[tuple[int, int]] = []
        """Micro-batch and number of each chunk."""
        self.num_unacknowledged = 0

    @property
    def max_payload_bytes(self) -> int:
        return self._inner.max_payload_bytes

    async def publish(
        self, topic: str, payload: bytes | bytearray | memoryview, *, retain: bool
    ) -> None:
        chunk = decode_chunk(memoryview(payload))
        self.handed_over.append((chunk.step.micro_batch, chunk.index))
        self.num_unacknowledged += 1
        try:
            await self._inner.publish(topic, payload, retain=retain)
            await self._allowed.acquire()
        finally:
            self.num_unacknowledged -= 1

    async def subscribe(self, topic_filter: str) -> None:
        await self._inner.subscribe(topic_filter)

    async def unsubscribe(self, topic_filter: str) -> None:
        await self._inner.unsubscribe(topic_filter)

    def events(self) -> AsyncIterator[BusEvent]:
        return self._inner.events()

    def acknowledge(self, number: int = 1) -> None:
        for _ in range(number):
            self._allowed.release()


class Timeline:
    """A clock that goes on to the next one who sleeps, once nobody else has anything to do."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now_s + seconds, woken))
        await woken

    async def run(self, *tasks: asyncio.Task[int]) -> None:
        while not all(task.done() for task in tasks):
            await _settle()
            if self._sleepers:
                self._sleepers.sort(key=lambda each: each[0])
                self.now_s, woken = self._sleepers.pop(0)
                woken.set_result(None)


async def _settle() -> None:
    """Let everybody do what there is to do."""
    for _ in range(50):
        await asyncio.sleep(0)


def _frame(micro_batch: int, num_chunks: int = 1) -> Frame:
    """A frame of so many full chunks."""
    body = Frame(FrameKind.GRADIENT, step_at(0), (np.zeros(0, np.uint8),))
    (empty,) = encode_chunks(body, chunk_bytes=CHUNK_BYTES)
    size = num_chunks * CHUNK_BYTES - (len(empty) - CHUNK_HEADER.size)
    tensor = np.zeros(size, np.uint8)
    return Frame(FrameKind.GRADIENT, step_at(0).part(micro_batch), (tensor,))


def _send(
    bus: SlowAcknowledgements | EmulatedBus, frame: Frame, window: SendWindow
) -> asyncio.Task[int]:
    sending = send_frame(bus, TOPIC, frame, chunk_bytes=CHUNK_BYTES, window=window)
    return asyncio.create_task(sending)


async def test_a_frame_does_not_wait_for_the_acknowledgement_of_the_one_before() -> None:
    bus, window = SlowAcknowledgements(MemoryBroker().connect("a")), SendWindow()
    tasks = [_send(bus, _frame(part), window) for part in range(3)]
    await _settle()
    assert bus.handed_over == [(0, 0), (1, 0), (2, 0)]
    assert not any(task.done() for task in tasks)
    bus.acknowledge()
    await _settle()
    assert [task.done() for task in tasks] == [True, False, False]
    bus.acknowledge(2)
    await asyncio.gather(*tasks)


async def test_frames_over_a_link_take_their_bytes_and_the_delay_once() -> None:
    time, window = Timeline(), SendWindow()
    link = DeviceClass(name="a", up_bps=8_000, down_bps=8_000, delay_s=5.0)
    inner = MemoryBroker().connect("a")
    async with EmulatedBus(inner, link, clock=time.clock, sleep=time.sleep) as bus:
        tasks = [_send(bus, _frame(part), window) for part in range(4)]
        await time.run(*tasks)
    num_bytes = sum(task.result() for task in tasks)
    overhead_bytes = 4 * (len(TOPIC) + MESSAGE_OVERHEAD_BYTES)
    assert time.now_s == pytest.approx((num_bytes + overhead_bytes) / 1_000 + 2 * 5.0)


@pytest.mark.parametrize("sizes", [(7,), (3, 4), (1, 2, 3, 1), (1,) * 7])
async def test_of_all_frames_together_few_chunks_are_unacknowledged(sizes: tuple[int, ...]) -> None:
    bus, window = SlowAcknowledgements(MemoryBroker().connect("a")), SendWindow()
    tasks = [_send(bus, _frame(part, count), window) for part, count in enumerate(sizes)]
    in_order = [(part, index) for part, count in enumerate(sizes) for index in range(count)]
    for num_acknowledged in range(len(in_order)):
        await _settle()
        assert bus.handed_over == in_order[: num_acknowledged + MAX_UNACKNOWLEDGED_CHUNKS]
        left = len(in_order) - num_acknowledged
        assert bus.num_unacknowledged == min(left, MAX_UNACKNOWLEDGED_CHUNKS)
        bus.acknowledge()
    await asyncio.gather(*tasks)


async def test_small_frames_go_in_as_many_as_there_are_bytes_of_a_few_chunks() -> None:
    bus, window = SlowAcknowledgements(MemoryBroker().connect("a")), SendWindow()
    small = [
        Frame(FrameKind.GRADIENT, step_at(0).part(part), (np.zeros(100, np.uint8),))
        for part in range(8)
    ]
    tasks = [_send(bus, frame, window) for frame in small]
    await _settle()
    assert bus.num_unacknowledged == len(small)
    bus.acknowledge(len(small))
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("num_chunks", [1, 2, 7])
async def test_a_frame_that_is_given_up_makes_room(num_chunks: int) -> None:
    bus, window = SlowAcknowledgements(MemoryBroker().connect("a")), SendWindow()
    for rounds in range(6):  # Before it has begun, and later.
        given_up = _send(bus, _frame(0, num_chunks), window)
        for _ in range(rounds):
            await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
    await _settle()
    assert bus.num_unacknowledged == 0
    after = _send(bus, _frame(1, MAX_UNACKNOWLEDGED_CHUNKS), window)
    await _settle()
    assert bus.num_unacknowledged == MAX_UNACKNOWLEDGED_CHUNKS
    bus.acknowledge(MAX_UNACKNOWLEDGED_CHUNKS)
    await after


@pytest.mark.parametrize("num_chunks", [1, 2])
async def test_a_frame_that_the_bus_refuses_makes_room(num_chunks: int) -> None:
    broker, window = MemoryBroker(), SendWindow()
    closed = broker.connect("a")
    await closed.close()
    for _ in range(2 * MAX_UNACKNOWLEDGED_CHUNKS):
        with pytest.raises(BusError, match="closed"):
            await send_frame(
                closed, TOPIC, _frame(0, num_chunks), chunk_bytes=CHUNK_BYTES, window=window
            )
    bus = SlowAcknowledgements(broker.connect("b"))
    after = _send(bus, _frame(1, MAX_UNACKNOWLEDGED_CHUNKS), window)
    await _settle()
    assert bus.num_unacknowledged == MAX_UNACKNOWLEDGED_CHUNKS
    bus.acknowledge(MAX_UNACKNOWLEDGED_CHUNKS)
    await after


async def test_gradients_of_a_device_do_not_wait_for_acknowledgements_either() -> None:
    bus = SlowAcknowledgements(MemoryBroker().connect("coordinator"))
    sent: list[int] = []
    outbound = Outbound(
        bus, TOPICS, chunk_bytes=10_000, on_sent=lambda _d, _k, step: sent.append(step.micro_batch)
    )
    tasks = [asyncio.create_task(outbound.to_device("d0", _frame(part))) for part in range(4)]
    await _settle()
    assert bus.handed_over == [(part, 0) for part in range(4)]
    assert not sent
    bus.acknowledge(4)
    await asyncio.gather(*tasks)
    assert sent == [0, 1, 2, 3]
