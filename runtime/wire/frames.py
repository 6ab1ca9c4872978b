"""Tensors on the wire: a frame is a small header and raw little-endian bytes, cut into chunks.

A frame names its kind and its step (run, round, cluster, epoch). Its body is a header with the
dtype and shape of every tensor, then the tensors' bytes, each aligned to eight. The body travels
in chunks, each with the frame's identity, its own place, the body's length and a checksum. Both
ends know what they asked for, so a receiver compares a header's bytes with the ones it expects
and never allocates by what a stranger declares.
"""

import math
import struct
import zlib
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from runtime.errors import MalformedMessageError, ProtocolError

Tensor = NDArray[np.generic]

VERSION, PARTED_VERSION = 1, 2
MAGIC = b"CP"
CHUNK_HEADER = struct.Struct("<2sBBQIHHHHQI")
"""Magic, version, kind, run, round, cluster, epoch, chunk, number of chunks, bytes of the body,
CRC-32 of the fields before and the chunk's bytes."""
PARTED_HEADER = struct.Struct("<2sBBQIHHHHHQI")
"""The same with the micro-batch after the epoch; of all micro-batches but the first."""

_ALIGNMENT = 8
_MAX_CHUNKS = 0xFFFF
_DTYPES = ("<f4", "<f8", "<i8", "<i4", "|u1", "|b1", "<f2", "<u2")


class FrameKind(IntEnum):
    """What a frame carries; the name in lower case is the leaf of its topic."""

    MODEL = 1
    SMASHED = 2
    GRADIENT = 3
    WEIGHTS = 4
    GRAPHS = 5
    OUTPUTS = 6
    PROBE = 16


_KINDS = frozenset(FrameKind)


@dataclass(frozen=True, order=True)
class StepId:
    """Which step of which run a message belongs to."""

    run: int
    round: int
    cluster: int
    epoch: int
    micro_batch: int = 0

    @property
    def first(self) -> "StepId":
        """The step's first micro-batch, which stands for all of them."""
        return self.part(0) if self.micro_batch else self

    def part(self, micro_batch: int) -> "StepId":
        """Name a micro-batch of the same step."""
        return StepId(self.run, self.round, self.cluster, self.epoch, micro_batch)


@dataclass(frozen=True)
class TensorSpec:
    """Dtype (as numpy spells it, little-endian) and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]
    num_values: int | None = None
    """If given, every element is a number from 0 to below this, as class labels are."""
    largest: float | None = None
    """If given, no element is farther from zero."""
    is_bfloat16: bool = False
    """Whether the elements are the upper halves of float32 numbers."""
    holds: "tuple[TensorSpec, ...]" = ()
    """If given, it is alone in its frame, [byte], and holds these, compressed if that is shorter:
    then its shape is the most that it may have."""

    @property
    def num_bytes(self) -> int:
        """Raw size, without padding."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Frame:
    """Tensors of one step."""

    kind: FrameKind
    step: StepId
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True)
class Chunk:
    """One chunk as it arrived, its header checked; `data` is a view of the payload."""

    kind: FrameKind
    step: StepId
    index: int
    num_chunks: int
    body_bytes: int
    data: memoryview


def spec_of(tensor: Tensor) -> TensorSpec:
    """Spec under which `tensor` travels; ProtocolError if there is none for its dtype."""
    dtype = tensor.dtype.newbyteorder("<").str
    if dtype not in _DTYPES:
        known = ", ".join(np.dtype(each).name for each in _DTYPES)
        raise ProtocolError(f"a tensor of {tensor.dtype} cannot travel, only of {known}")
    return TensorSpec(dtype, tensor.shape)


def specs_of(tensors: Sequence[Tensor]) -> tuple[TensorSpec, ...]:
    """Specs under which `tensors` travel."""
    return tuple(spec_of(tensor) for tensor in tensors)


def body_bytes(specs: Sequence[TensorSpec]) -> int:
    """Length of the body of a frame with these tensors; the most, where it may be shorter."""
    return sum(_padded(spec.num_bytes) for spec in specs) + len(_body_header(specs))


def encode_chunks(
    frame: Frame, *, chunk_bytes: int, only: Container[int] | None = None
) -> Iterator[bytes]:
    """Cut a frame into payloads of at most `chunk_bytes` of body and a header each.

    With `only`, just the chunks of these numbers.
    """
    body = encode_body(frame.tensors)
    num_chunks = max(1, math.ceil(len(body) / chunk_bytes))
    if num_chunks > _MAX_CHUNKS:
        raise ValueError(f"{len(body)} bytes in chunks of {chunk_bytes} are {num_chunks} chunks")
    view = memoryview(body)
    for index in range(num_chunks):
        if only is not None and index not in only:
            continue
        data = view[index * chunk_bytes : (index + 1) * chunk_bytes]
        head = _chunk_head(frame, index=index, num_chunks=num_chunks, body_length=len(body))
        crc = zlib.crc32(data, zlib.crc32(head))
        yield b"".join((head, crc.to_bytes(4, "little"), data))


def header_of(step: StepId) -> struct.Struct:
    """Give the header that chunks of a step have."""
    return PARTED_HEADER if step.micro_batch else CHUNK_HEADER


def decode_chunk(payload: memoryview) -> Chunk:
    """Check a chunk's header and checksum; MalformedMessageError says what is wrong."""
    is_parted = payload[:3] == MAGIC + bytes([PARTED_VERSION])
    header = PARTED_HEADER if is_parted else CHUNK_HEADER
    if len(payload) < header.size:
        raise MalformedMessageError(f"a chunk of {len(payload)} bytes is shorter than its header")
    fields = header.unpack(payload[: header.size])
    magic, version, kind, *place, index, num_chunks, length, crc = fields
    if magic != MAGIC or version != (PARTED_VERSION if is_parted else VERSION):
        raise MalformedMessageError(f"not a chunk of version {VERSION}: starts {magic!r} {version}")
    data = payload[header.size :]
    if zlib.crc32(data, zlib.crc32(payload[: header.size - 4])) != crc:
        raise MalformedMessageError(f"checksum of chunk {index} of {num_chunks} is wrong")
    if kind not in _KINDS or index >= num_chunks or len(data) > length:
        raise MalformedMessageError(
            f"impossible chunk: kind {kind}, {index} of {num_chunks}, {len(data)} of {length} bytes"
        )
    return Chunk(FrameKind(kind), StepId(*place), index, num_chunks, length, data)


def decode_body(body: bytearray | memoryview, specs: Sequence[TensorSpec]) -> tuple[Tensor, ...]:
    """Give the tensors as aligned views of `body`, which must be exactly those of `specs`."""
    specs = _as_long(body, specs)
    header = _body_header(specs)
    if len(body) != body_bytes(specs) or bytes(body[: len(header)]) != header:
        raise MalformedMessageError(
            f"{len(body)} bytes that start {bytes(body[:24]).hex()} are not the "
            f"{body_bytes(specs)} bytes of {len(specs)} tensors that were asked for"
        )
    tensors = []
    offset = len(header)
    for spec in specs:
        flat = np.frombuffer(body, spec.dtype, count=math.prod(spec.shape), offset=offset)
        tensors.append(flat.reshape(spec.shape))
        offset += _padded(spec.num_bytes)
    return tuple(tensors)


def may_be_shorter(specs: Sequence[TensorSpec]) -> bool:
    """Whether a body with these tensors has at most, not exactly, the bytes of `body_bytes`."""
    return len(specs) == 1 and bool(specs[0].holds)


def check_values(tensors: Sequence[Tensor], specs: Sequence[TensorSpec]) -> None:
    """MalformedMessageError for a NaN, an infinity, or a number outside its spec's range."""
    for place, (tensor, spec) in enumerate(zip(tensors, specs, strict=True)):
        if not _is_finite(tensor, spec):
            raise MalformedMessageError(f"NaN or infinity in tensor {place}")
        if spec.largest is not None and tensor.size and np.abs(tensor).max() > spec.largest:
            raise MalformedMessageError(
                f"a value of {np.abs(tensor).max():.3g} in tensor {place}; {spec.largest:.3g} is "
                "the most"
            )
        if spec.num_values is None or not tensor.size:
            continue
        low, high = tensor.min(), tensor.max()
        if not 0 <= low <= high < spec.num_values:
            raise MalformedMessageError(
                f"tensor {place} has values from {low} to {high}, not from 0 to "
                f"{spec.num_values - 1}"
            )


def _is_finite(tensor: Tensor, spec: TensorSpec) -> bool:
    if spec.is_bfloat16:
        exponents = np.bitwise_and(tensor.astype("<u2", copy=False), 0x7F80)
        return not (exponents == 0x7F80).any()
    return tensor.dtype.kind != "f" or bool(np.isfinite(tensor).all())


def _as_long(body: bytearray | memoryview, specs: Sequence[TensorSpec]) -> Sequence[TensorSpec]:
    """Of a spec that may be shorter, the one that is as long as the body says, if it may be."""
    if not may_be_shorter(specs) or len(body) < _ALIGNMENT:
        return specs
    (length,) = struct.unpack("<I", body[4:_ALIGNMENT])
    return [TensorSpec(specs[0].dtype, (min(length, specs[0].shape[0]),))]


def encode_body(tensors: Sequence[Tensor]) -> bytes:
    """Write tensors as the body of a frame: header, then their bytes."""
    parts: list[bytes | memoryview] = [_body_header(specs_of(tensors))]
    for tensor in tensors:
        spec = spec_of(tensor)
        raw = np.ascontiguousarray(tensor.astype(spec.dtype, copy=False)).reshape(-1)
        parts.append(raw.view(np.uint8).data if raw.size else b"")
        parts.append(bytes(_padded(spec.num_bytes) - spec.num_bytes))
    return b"".join(parts)


def _body_header(specs: Sequence[TensorSpec]) -> bytes:
    parts = [struct.pack("<H", len(specs))]
    for spec in specs:
        code = _DTYPES.index(spec.dtype)
        parts.append(struct.pack(f"<BB{len(spec.shape)}I", code, len(spec.shape), *spec.shape))
    header = b"".join(parts)
    return header + bytes(_padded(len(header)) - len(header))


def _chunk_head(frame: Frame, *, index: int, num_chunks: int, body_length: int) -> bytes:
    step = frame.step
    header = header_of(step)
    version = PARTED_VERSION if step.micro_batch else VERSION
    place = [step.run, step.round, step.cluster, step.epoch]
    place += [step.micro_batch] if step.micro_batch else []
    head = header.pack(MAGIC, version, frame.kind, *place, index, num_chunks, body_length, 0)
    return head[:-4]


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
