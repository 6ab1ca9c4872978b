"""Frames over a bus: out in chunks with few unacknowledged, in through a reassembly."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import chain

from runtime.bus.bus import Bus
from runtime.bus.pacing import Pacer
from runtime.errors import BusError, MalformedMessageError, root_cause
from runtime.wire.frames import (
    CHUNK_HEADER,
    Frame,
    FrameKind,
    StepId,
    TensorSpec,
    check_values,
    decode_chunk,
    encode_chunks,
)
from runtime.wire.reassembly import Reassembly

MAX_UNACKNOWLEDGED_CHUNKS = 4

AskedFor = Callable[[FrameKind, StepId], Sequence[TensorSpec] | None]


def leaf_of(kind: FrameKind) -> str:
    """Last level of the topic that frames of this kind travel on."""
    return kind.name.lower()


async def send_frame(
    bus: Bus, topic: str, frame: Frame, *, chunk_bytes: int, pacer: Pacer | None = None
) -> int:
    """Publish a frame in chunks; the bytes of its payloads, once the broker has them all."""
    if pacer is not None:
        chunk_bytes = min(chunk_bytes, pacer.chunk_bytes)
    room = min(chunk_bytes, bus.max_payload_bytes - CHUNK_HEADER.size)
    if room < 1:
        raise BusError(f"the broker accepts {bus.max_payload_bytes} bytes, too few for a tensor")
    chunks = encode_chunks(frame, chunk_bytes=room)
    first = next(chunks)
    second = next(chunks, None)
    if second is None:  # Most frames: no need of tasks.
        if pacer is not None:
            await pacer.take(len(first))
        await bus.publish(topic, first, retain=False)
        return len(first)
    window = asyncio.Semaphore(MAX_UNACKNOWLEDGED_CHUNKS)
    num_bytes = 0

    async def publish(chunk: bytes) -> None:
        try:
            await bus.publish(topic, chunk, retain=False)
        finally:
            window.release()

    try:
        async with asyncio.TaskGroup() as tasks:
            for chunk in chain((first, second), chunks):
                if pacer is not None:
                    await pacer.take(len(chunk))
                await window.acquire()
                num_bytes += len(chunk)
                tasks.create_task(publish(chunk), name=f"publish {topic}")
    except ExceptionGroup as errors:
        raise root_cause(errors) from None
    return num_bytes


class FrameInbox:
    """Frames from one peer: what was not asked for is counted and dropped, unread.

    One frame of each kind may be under way, so that a late repeat of one does not undo another.
    """

    def __init__(self, asked_for: AskedFor) -> None:
        self._asked_for = asked_for
        self._reassemblies: defaultdict[FrameKind, Reassembly] = defaultdict(Reassembly)
        self.num_stale = 0

    def feed(self, payload: memoryview, *, kind: FrameKind) -> Frame | None:
        """Take one payload from the topic of `kind`; the frame that it completes.

        Raises MalformedMessageError for what can never be right.
        """
        chunk = decode_chunk(payload)
        if chunk.kind is not kind:
            raise MalformedMessageError(f"a {leaf_of(chunk.kind)} frame among {leaf_of(kind)}")
        specs = self._asked_for(chunk.kind, chunk.step)
        if specs is None:
            self.num_stale += 1
            return None
        frame = self._reassemblies[kind].feed(chunk, specs)
        if frame is not None:
            check_values(frame.tensors, specs)
        return frame
