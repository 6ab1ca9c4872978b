"""Pacing: a share is kept to the second, and whoever waits holds nobody up."""

import asyncio

import numpy as np
import pytest

from runtime.bus.memory_bus import MemoryBroker
from runtime.bus.pacing import MIN_CHUNK_BYTES, Pacer
from runtime.wire.chunks.transfer import send_frame
from runtime.wire.frames import Frame, FrameKind, StepId


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += max(seconds, 0.0)
        await asyncio.sleep(0)


def _pacer(time: FakeTime, rate_bps: float) -> Pacer:
    return Pacer(rate_bps, clock=time.clock, sleep=time.sleep)


async def test_bytes_leave_at_the_rate_of_the_share() -> None:
    time = FakeTime()
    pacer = _pacer(time, 8e6)
    for _ in range(10):
        await pacer.take(100_000)
    assert time.now_s == pytest.approx(101.0)


async def test_a_silent_sender_saves_nothing_up() -> None:
    time = FakeTime()
    pacer = _pacer(time, 8e6)
    time.now_s += 60.0
    await pacer.take(1_000_000)
    assert time.now_s == pytest.approx(161.0)


async def test_a_paced_frame_goes_in_short_chunks_and_takes_what_its_share_says() -> None:
    time, broker = FakeTime(), MemoryBroker()
    frame = Frame(FrameKind.SMASHED, StepId(1, 1, 0, 0), (np.zeros(50_000, np.float32),))
    async with broker.connect("sender") as bus:
        pacer = _pacer(time, 1e6)
        num_bytes = await send_frame(bus, "a/b", frame, chunk_bytes=2**18, pacer=pacer)
    assert pacer.chunk_bytes == pytest.approx(1e6 / 8 * 0.05, abs=1)
    assert time.now_s - 100.0 == pytest.approx(num_bytes * 8 / 1e6)


async def test_two_paced_senders_do_not_wait_for_each_other() -> None:
    time = FakeTime()
    start_s = time.now_s
    slow, fast = _pacer(time, 1e3), _pacer(time, 1e9)
    await asyncio.gather(slow.take(1000), fast.take(1000))
    assert time.now_s - start_s < 8.1


def test_a_chunk_is_never_tiny() -> None:
    assert Pacer(1.0).chunk_bytes == MIN_CHUNK_BYTES


async def test_a_frame_of_one_chunk_is_paced_too() -> None:
    time, broker = FakeTime(), MemoryBroker()
    frame = Frame(FrameKind.SMASHED, StepId(1, 1, 0, 0), (np.zeros(500, np.float32),))
    async with broker.connect("sender") as bus:
        pacer = _pacer(time, 1e5)
        num_bytes = await send_frame(bus, "a/b", frame, chunk_bytes=2**18, pacer=pacer)
    assert time.now_s - 100.0 == pytest.approx(num_bytes * 8 / 1e5)
