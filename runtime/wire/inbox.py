"""Frames from one peer: what was not asked for is counted and dropped, unread."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from runtime.errors import MalformedMessageError
from runtime.wire.codecs.lossless import inflate
from runtime.wire.frame_questions import MAX_RANGES
from runtime.wire.frames import (
    Chunk,
    Frame,
    FrameKind,
    StepId,
    TensorSpec,
    check_values,
    decode_chunk,
    may_be_shorter,
)
from runtime.wire.reassembly import Reassembly

AskedFor = Callable[[FrameKind, StepId], Sequence[TensorSpec] | None]


def leaf_of(kind: FrameKind) -> str:
    """Last level of the topic that frames of this kind travel on."""
    return kind.name.lower()


def decode_chunk_of(kind: FrameKind, payload: memoryview) -> Chunk:
    """Check a payload from the topic of `kind`; MalformedMessageError says what is wrong."""
    chunk = decode_chunk(payload)
    if chunk.kind is not kind:
        raise MalformedMessageError(f"a {leaf_of(chunk.kind)} frame among {leaf_of(kind)}")
    return chunk


class FrameInbox:
    """Puts the frames of one peer together.

    One frame of each kind and micro-batch may be under way, so that a late repeat of one does not
    undo another.
    """

    def __init__(self, asked_for: AskedFor) -> None:
        self._asked_for = asked_for
        self._reassemblies: defaultdict[tuple[FrameKind, int], Reassembly] = defaultdict(Reassembly)
        self.num_stale = 0

    def feed(self, payload: memoryview, *, kind: FrameKind) -> Frame | None:
        """Take one payload from the topic of `kind`; the frame that it completes.

        Raises MalformedMessageError for what can never be right.
        """
        return self.add(decode_chunk_of(kind, payload))

    def add(self, chunk: Chunk) -> Frame | None:
        """Take one chunk; the frame that it completes."""
        specs = self._asked_for(chunk.kind, chunk.step)
        if specs is None:
            self.num_stale += 1
            return None
        frame = self._reassemblies[chunk.kind, chunk.step.micro_batch].feed(chunk, specs)
        if frame is None:
            return None
        if may_be_shorter(specs):
            frame = replace(frame, tensors=inflate(frame.tensors, specs))
            specs = specs[0].holds
        check_values(frame.tensors, specs)
        return frame

    def missing(self, kind: FrameKind, step: StepId) -> tuple[tuple[int, int], ...]:
        """Chunks of a frame that have not come, as runs; nothing if none has, so all of them."""
        reassembly = self._reassemblies.get((kind, step.micro_batch))
        return reassembly.missing(kind, step)[:MAX_RANGES] if reassembly is not None else ()

    def forget(self) -> None:
        """Let go of what has come of frames that are not whole."""
        self._reassemblies.clear()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept of a frame that is not whole."""
        return not self._reassemblies
