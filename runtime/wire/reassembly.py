"""Putting a frame together from its chunks, one frame at a time from one peer."""

from collections.abc import Iterable, Sequence

from runtime.errors import MalformedMessageError
from runtime.wire.frames import (
    Chunk,
    Frame,
    FrameKind,
    StepId,
    TensorSpec,
    body_bytes,
    decode_body,
    may_be_shorter,
)


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
