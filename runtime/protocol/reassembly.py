"""Putting a frame together from its chunks, one frame at a time from one peer."""

from collections.abc import Sequence

import numpy as np

from runtime.errors import MalformedMessageError
from runtime.tensors import Chunk, Frame, TensorSpec, body_bytes, decode_body


class Reassembly:
    """Collects the chunks of one peer's present frame; a chunk of another frame starts over.

    A peer has one frame in flight, so this holds one body and no more. Memory is taken only for
    a frame of exactly the size that was asked for. Chunks may come twice and in any order.
    """

    def __init__(self) -> None:
        self._identity: tuple[object, ...] = ()
        self._body = _room_for(0)
        self._missing: set[int] = set()

    def feed(self, chunk: Chunk, specs: Sequence[TensorSpec]) -> Frame | None:
        """Add a chunk of a frame with these tensors; the frame, once it is complete."""
        offset = _offset(chunk, asked_bytes=body_bytes(specs))
        identity = (chunk.kind, chunk.step, chunk.num_chunks)
        if identity != self._identity:
            self._identity = identity
            self._body = _room_for(chunk.body_bytes)
            self._missing = set(range(chunk.num_chunks))
        if chunk.index not in self._missing:
            return None
        self._body[offset : offset + len(chunk.data)] = chunk.data
        self._missing.remove(chunk.index)
        if self._missing:
            return None
        body, self._body, self._identity = self._body, _room_for(0), ()
        return Frame(chunk.kind, chunk.step, decode_body(body, specs))


def _room_for(num_bytes: int) -> memoryview:
    """Make room that is not filled with zeros first, unlike a bytearray's."""
    return np.empty(num_bytes, np.uint8).data


def _offset(chunk: Chunk, *, asked_bytes: int) -> int:
    """Where a chunk belongs: all but the last have one size, the last one ends the body."""
    size = len(chunk.data)
    if chunk.body_bytes != asked_bytes:
        raise MalformedMessageError(
            f"a {chunk.kind.name.lower()} frame of {chunk.body_bytes} bytes; "
            f"{asked_bytes} bytes were asked for"
        )
    if chunk.index == chunk.num_chunks - 1:
        offset = chunk.body_bytes - size
        fits = (
            size > 0 and (chunk.index == 0) == (offset == 0) and offset % max(chunk.index, 1) == 0
        )
    else:
        offset = chunk.index * size
        fits = -(-chunk.body_bytes // max(size, 1)) == chunk.num_chunks
    if not fits:
        raise MalformedMessageError(
            f"chunk {chunk.index} of {chunk.num_chunks} with {size} bytes does not fit into a body "
            f"of {chunk.body_bytes} bytes"
        )
    return offset
