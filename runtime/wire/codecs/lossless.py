"""Lossless compression of a frame's body by zlib, where that makes it shorter.

The body travels as one tensor of bytes. It is as long as the body itself where compressing gains
nothing; that is the most that may come, so a receiver never takes more than it asked for, and
never unpacks to more.
"""

import zlib
from collections.abc import Sequence

import numpy as np

from runtime.errors import MalformedMessageError
from runtime.wire.frames import Tensor, TensorSpec, body_bytes, decode_body, encode_body

LEVEL = 1
"""Of zlib: higher ones take several times as long for a few per cent."""


def deflated_specs(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Shape of what travels instead of these tensors."""
    return (TensorSpec("|u1", (body_bytes(specs),), holds=tuple(specs)),)


def deflate(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Put a frame's tensors into one, compressed if it is shorter so."""
    body = encode_body(tensors)
    deflated = zlib.compress(body, LEVEL)
    return [np.frombuffer(min(deflated, body, key=len), np.uint8)]


def inflate(tensors: Sequence[Tensor], specs: Sequence[TensorSpec]) -> tuple[Tensor, ...]:
    """Undo `deflate`; MalformedMessageError if it is not what the specs hold, to the byte."""
    (packed,), (spec,) = tensors, specs
    (most_bytes,) = spec.shape
    if len(packed) == most_bytes:
        return decode_body(bytearray(packed.tobytes()), spec.holds)
    unpacking = zlib.decompressobj()
    try:
        body = unpacking.decompress(packed.tobytes(), most_bytes + 1)
    except zlib.error as error:
        raise MalformedMessageError(f"compressed tensors that cannot be read: {error}") from error
    if not unpacking.eof or unpacking.unused_data:
        raise MalformedMessageError(
            f"compressed tensors do not end after the {most_bytes} bytes that were asked for"
        )
    return decode_body(bytearray(body), spec.holds)
