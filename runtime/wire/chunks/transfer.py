"""Frames over a bus: out in chunks with few unacknowledged, of a size that the link carries.

A frame does not wait until the broker has acknowledged the one before it: the link would be idle
for a round trip after each, which for small ones, as micro-batches are, is longer than their bytes.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Container, Iterable
from dataclasses import dataclass
from itertools import chain

from profiles.units import BITS_PER_BYTE
from runtime.bus.bus import Bus
from runtime.bus.pacing import Pacer
from runtime.errors import BusError, root_cause
from runtime.wire.frames import CHUNK_HEADER, PARTED_HEADER, Frame, encode_chunks

MAX_UNACKNOWLEDGED_CHUNKS = 4
CHUNK_S = 0.5
"""What a link carries in this time is one chunk: a question that waits behind a few of them is
answered before anybody takes the connection for dead."""
FIRST_CHUNK_BYTES = 16_000
"""Of a link that nothing is known of."""
LEAST_CHUNK_BYTES = 10_000
"""With fewer, headers would be more than a hundredth of what travels."""
MOST_CHUNKS = 400
"""Of one frame: a broker keeps so many messages for a reader that is slow, and some more."""


@dataclass
class SharedLine:
    """What whoever shares a line has sent over it: frames of many come and go at the same time."""

    num_bytes: int = 0


class SendWindow:
    """What one sender has under way to one receiver: frames in order, and few bytes of them.

    Unacknowledged are at most as many bytes as so many chunks have, of all frames together: what
    is sent after them does not wait for long.
    """

    def __init__(self) -> None:
        self.order = asyncio.Lock()
        """Held by whoever hands a frame over."""
        self._num_bytes = 0
        self._released = asyncio.Event()

    async def reserve(self, num_bytes: int, *, chunk_bytes: int) -> None:
        """Wait until there is room for one more message; for whoever holds `order`."""
        most_bytes = MAX_UNACKNOWLEDGED_CHUNKS * (chunk_bytes + PARTED_HEADER.size)
        while self._num_bytes and self._num_bytes + num_bytes > most_bytes:
            self._released.clear()
            await self._released.wait()
        self._num_bytes += num_bytes

    def release(self, num_bytes: int) -> None:
        """Take note that a message is acknowledged, or given up."""
        self._num_bytes -= num_bytes
        self._released.set()


class ChunkSize:
    """How large the chunks of a link's next frame are, by what its last ones took."""

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes` is what a chunk may have however fast the link is."""
        self._most_bytes = most_bytes
        self._bytes = FIRST_CHUNK_BYTES

    def of(self, frame: Frame) -> int:
        """Give the bytes of this frame's chunks."""
        num_bytes = sum(tensor.nbytes for tensor in frame.tensors)
        return min(max(self._bytes, math.ceil(num_bytes / MOST_CHUNKS)), self._most_bytes)

    def learn(self, *, num_bytes: int, seconds: float) -> None:
        """Take in that the link carried so many bytes in at most so many seconds."""
        if num_bytes < LEAST_CHUNK_BYTES:
            return
        carried = num_bytes * CHUNK_S / seconds if seconds > 0 else self._most_bytes
        self._bytes = int(min(max(carried, LEAST_CHUNK_BYTES), self._most_bytes))

    def know(self, bps: float) -> None:
        """Take the rate of a link that has been measured."""
        self.learn(num_bytes=LEAST_CHUNK_BYTES, seconds=LEAST_CHUNK_BYTES * BITS_PER_BYTE / bps)


async def send_frame(
    bus: Bus,
    topic: str,
    frame: Frame,
    *,
    chunk_bytes: int,
    pacer: Pacer | None = None,
    only: Container[int] | None = None,
    window: SendWindow | None = None,
) -> int:
    """Publish a frame in chunks; the bytes of its payloads, once the broker has them all.

    With `only`, just the chunks of these numbers, which has to be the size that they had before.
    It follows the frames before it in the same `window`; without one it goes by itself.
    """
    room = chunk_room(bus, chunk_bytes, pacer)
    chunks = encode_chunks(frame, chunk_bytes=room, only=only)
    first = next(chunks, None)
    if first is None:
        return 0
    second = next(chunks, None)
    window = window or SendWindow()

    async def reserve(chunk: bytes) -> None:
        if pacer is not None:
            await pacer.take(len(chunk))
        await window.reserve(len(chunk), chunk_bytes=room)

    if second is not None:
        return await _send_in_flight(bus, topic, chain((first, second), chunks), window, reserve)
    async with window.order:
        await reserve(first)
    try:  # Most frames: no need of tasks.
        await bus.publish(topic, first, retain=False)
    finally:
        window.release(len(first))
    return len(first)


async def _send_in_flight(
    bus: Bus,
    topic: str,
    chunks: Iterable[bytes],
    window: SendWindow,
    reserve: Callable[[bytes], Awaitable[None]],
) -> int:
    """Publish chunks, some of them unacknowledged; their bytes."""
    num_bytes = 0

    def hand_over(chunk: bytes, tasks: asyncio.TaskGroup) -> None:
        publish = bus.publish(topic, chunk, retain=False)
        task = tasks.create_task(publish, name=f"publish {topic}")
        # By a callback: a task that is cancelled before it has begun runs none of its own.
        task.add_done_callback(lambda _: window.release(len(chunk)))

    try:
        async with asyncio.TaskGroup() as tasks, window.order:
            for chunk in chunks:
                await reserve(chunk)
                num_bytes += len(chunk)
                hand_over(chunk, tasks)
    except ExceptionGroup as errors:
        raise root_cause(errors) from None
    return num_bytes


def chunk_room(bus: Bus, chunk_bytes: int, pacer: Pacer | None) -> int:
    """Bytes of a frame in one message, of those wished for; BusError if there is no room at all."""
    if pacer is not None:
        chunk_bytes = min(chunk_bytes, pacer.chunk_bytes)
    room = min(chunk_bytes, bus.max_payload_bytes - CHUNK_HEADER.size)
    if room < 1:
        raise BusError(f"the broker accepts {bus.max_payload_bytes} bytes, too few for a tensor")
    return room
