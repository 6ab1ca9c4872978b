"""Frames from one peer, put together from chunks: what was not asked for is dropped, unread."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from runtime.errors import MalformedMessageError
from runtime.wire.chunks.questions import MAX_RANGES
from runtime.wire.codecs.lossless import inflate
from runtime.wire.frames import (
    Chunk,
    Frame,
    FrameKind,
    StepId,
    TensorSpec,
    body_bytes,
    check_values,
    decode_body,
    decode_chunk,
    may_be_shorter,
)

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


class Reassembly:
    """Collects the chunks of one peer's present frame; a chunk of another frame starts over.

    A peer has one frame in flight, so this holds one body and no more: only of a frame of exactly
    the size that was asked for, and of that only what has come. Chunks may come twice and in any
    order.
    """

    def __init__(self) -> None:
        self._identity: tuple[object, ...] = ()
        self._parts: dict[int, bytes] = {}
        self._num_chunks = 0

    def missing(self, kind: FrameKind, step: StepId) -> tuple[tuple[int, int], ...]:
        """Chunks of a frame that have not come, by the first and last of each run.

        Nothing if none has come: how many there are is not known then.
        """
        if self._identity[:2] != (kind, step):
            return ()
        absent = [index for index in range(self._num_chunks) if index not in self._parts]
        return runs_of(absent)

    def feed(self, chunk: Chunk, specs: Sequence[TensorSpec]) -> Frame | None:
        """Add a chunk of a frame with these tensors; the frame, once it is complete."""
        body = _body_bytes(chunk, specs)
        chunk_bytes = _chunk_bytes(chunk, asked_bytes=body)
        identity = (chunk.kind, chunk.step, chunk_bytes, body)
        if identity != self._identity:
            self._identity, self._parts = identity, {}
            self._num_chunks = chunk.num_chunks
        if chunk.index not in self._parts:
            self._parts[chunk.index] = bytes(chunk.data)
        if len(self._parts) < chunk.num_chunks:
            return None
        whole = bytearray().join(self._parts[index] for index in range(chunk.num_chunks))
        self._identity, self._parts = (), {}
        return Frame(chunk.kind, chunk.step, decode_body(whole, specs))


def runs_of(numbers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Put ascending numbers together to runs: the first and the last of each."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return tuple(runs)


def numbers_of(runs: Iterable[tuple[int, int]]) -> frozenset[int]:
    """Undo `runs_of`."""
    return frozenset(number for first, last in runs for number in range(first, last + 1))


def _body_bytes(chunk: Chunk, specs: Sequence[TensorSpec]) -> int:
    """Bytes of the frame's body: those that were asked for, or where it may be, fewer."""
    asked_bytes = body_bytes(specs)
    is_shorter = may_be_shorter(specs) and chunk.body_bytes < asked_bytes
    if chunk.body_bytes != asked_bytes and not is_shorter:
        raise MalformedMessageError(
            f"a {chunk.kind.name.lower()} frame of {chunk.body_bytes} bytes; "
            f"{asked_bytes} bytes were asked for"
        )
    return chunk.body_bytes


def _chunk_bytes(chunk: Chunk, *, asked_bytes: int) -> int:
    """Size of the frame's chunks: all but the last have it, the last one ends the body."""
    size, before = len(chunk.data), chunk.num_chunks - 1
    is_last = chunk.index == before
    # Where the last chunk begins, that many equal chunks have ended.
    chunk_bytes, rest = divmod(asked_bytes - size, before) if is_last and before else (size, 0)
    if rest or not 0 < size <= chunk_bytes or -(-asked_bytes // chunk_bytes) != chunk.num_chunks:
        raise MalformedMessageError(
            f"chunk {chunk.index} of {chunk.num_chunks} with {size} bytes does not fit into a body "
            f"of {asked_bytes} bytes"
        )
    return chunk_bytes


class FrameInbox:
    """Puts the frames of one peer together.

    One frame of each kind and micro-batch may be under way, so that a late repeat of one does not
    undo another.
    """

    def __init__(self, asked_for: AskedFor) -> None:
        self._asked_for = asked_for
        self._reassemblies: defaultdict[tuple[FrameKind, int], Reassembly] = defaultdict(Reassembly)
        self.num_stale = 0
        self.num_unusable = 0
        """Chunks and frames that can never be right, of what is asked for now."""

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
        self.num_unusable = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept of a frame that is not whole."""
        return not self._reassemblies
