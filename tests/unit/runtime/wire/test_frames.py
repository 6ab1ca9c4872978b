"""Tensors on the wire: exact, aligned, hardly larger than their numbers, refused when wrong."""

import tracemalloc
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import MalformedMessageError, ProtocolError
from runtime.offered import DEFAULT_CHUNK_BYTES
from runtime.wire.chunks.inbox import FrameInbox
from runtime.wire.frames import (
    CHUNK_HEADER,
    Frame,
    FrameKind,
    StepId,
    Tensor,
    TensorSpec,
    body_bytes,
    decode_body,
    decode_chunk,
    encode_chunks,
    spec_of,
    specs_of,
)

STEP = StepId(run=7, round=3, cluster=1, epoch=0)


def _floats(*shape: int) -> Tensor:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _smashed(*tensors: Tensor) -> Frame:
    return Frame(FrameKind.SMASHED, STEP, tensors)


def _feed(chunks: Sequence[bytes], specs: Sequence[TensorSpec]) -> list[Frame]:
    inbox = FrameInbox(lambda *_: specs)
    fed = [inbox.feed(memoryview(chunk), kind=FrameKind.SMASHED) for chunk in chunks]
    return [frame for frame in fed if frame is not None]


def _raw(tensors: Sequence[Tensor]) -> list[bytes]:
    return [tensor.tobytes() for tensor in tensors]


# Exact


TENSORS = st.lists(
    st.builds(
        lambda dtype, shape, seed: np.random.default_rng(seed).integers(0, 2, shape).astype(dtype),
        st.sampled_from(["<f4", "<f8", "<i8", "<i4", "|u1", "|b1", "<f2", "<u2", ">f4", ">i8"]),
        st.lists(st.integers(0, 5), max_size=4).map(tuple),
        st.integers(0, 2**32),
    ),
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(tensors=TENSORS, chunk_bytes=st.integers(1, 300), data=st.data())
def test_chunks_in_any_order_with_duplicates_give_the_frame_exactly_once(
    tensors: list[Tensor], chunk_bytes: int, data: st.DataObject
) -> None:
    chunks = list(encode_chunks(_smashed(*tensors), chunk_bytes=chunk_bytes))
    order = data.draw(st.permutations(range(len(chunks))))
    # A chunk comes again while another is still missing.
    again = data.draw(st.lists(st.sampled_from(order[:-1]), max_size=20)) if order[1:] else []
    repeats = [place for place in again if place != order[-1]]
    arriving = [chunks[place] for place in (*order[:-1], *repeats, order[-1])]
    [frame] = _feed(arriving, specs_of(tensors))
    assert frame.step == STEP
    assert [t.shape for t in frame.tensors] == [t.shape for t in tensors]
    for ours, theirs in zip(frame.tensors, tensors, strict=True):
        assert ours.dtype == theirs.dtype.newbyteorder("<")
        np.testing.assert_array_equal(ours, theirs)


def test_tensors_that_arrived_are_aligned_and_may_be_written_to() -> None:
    tensors: list[Tensor] = [_floats(3), np.ones(5, np.uint8), np.arange(3), np.array(2.5)]
    [frame] = _feed(list(encode_chunks(_smashed(*tensors), chunk_bytes=17)), specs_of(tensors))
    for tensor in frame.tensors:
        assert tensor.flags.aligned
        assert tensor.flags.writeable
        assert tensor.flags.c_contiguous


def test_a_view_with_strides_travels_as_its_values() -> None:
    tensor = _floats(6, 8).T[::2]
    [frame] = _feed(list(encode_chunks(_smashed(tensor), chunk_bytes=50)), specs_of([tensor]))
    np.testing.assert_array_equal(frame.tensors[0], tensor)


def test_a_frame_of_nothing_is_one_small_chunk() -> None:
    [chunk] = encode_chunks(_smashed(), chunk_bytes=100)
    assert len(chunk) == CHUNK_HEADER.size + 8
    [frame] = _feed([chunk], ())
    assert frame.tensors == ()


def test_frames_of_two_kinds_may_overtake_each_other() -> None:
    tensor = _floats(100)
    smashed = list(encode_chunks(_smashed(tensor), chunk_bytes=100))
    weights = list(encode_chunks(Frame(FrameKind.WEIGHTS, STEP, (tensor,)), chunk_bytes=100))
    inbox = FrameInbox(lambda *_: specs_of([tensor]))
    whole = []
    for pair in zip(smashed, weights, strict=True):
        for chunk, kind in zip(pair, (FrameKind.SMASHED, FrameKind.WEIGHTS), strict=True):
            whole.append(inbox.feed(memoryview(chunk), kind=kind))
    assert [frame.kind for frame in whole if frame] == [FrameKind.SMASHED, FrameKind.WEIGHTS]


def test_chunks_of_two_sizes_are_never_mixed() -> None:
    tensor = _floats(250)
    specs = specs_of([tensor])
    small, large = (list(encode_chunks(_smashed(tensor), chunk_bytes=n)) for n in (340, 490))
    assert len(small) == len(large) == 3
    assert _feed([small[0], large[1], small[2], large[0], small[1], large[2]], specs) == []
    [frame] = _feed([small[0], *large], specs)
    assert _raw(frame.tensors) == _raw([tensor])


# Small


LENET_AT_POOL1 = (6, 14, 14)


@pytest.mark.parametrize("batch", [2, 4, 16, 64])
@pytest.mark.parametrize("shape", [LENET_AT_POOL1, (16, 5, 5), (16, 16, 16), (2560,)])
@pytest.mark.parametrize("label", [np.uint8, np.uint16])
def test_smashed_data_with_labels_take_at_most_one_percent_more_than_their_floats(
    batch: int, shape: tuple[int, ...], label: type[np.generic]
) -> None:
    smashed, labels = _floats(batch, *shape), np.zeros(batch, label)
    if smashed.nbytes >= 10_000:
        assert _frame_bytes(_smashed(smashed, labels)) <= 1.01 * smashed.nbytes


@pytest.mark.parametrize(
    "shapes",
    [
        [(16, *LENET_AT_POOL1)],
        [(6, 1, 5, 5), (6,), (16, 6, 5, 5), (16,)],
        [(6, 1, 5, 5), (6,), (16, 6, 5, 5), (16,), (120, 400), (120,), (84, 120), (84,), (10, 84)],
        [(16, 16, 3, 3), (16,), (16,), (16,), (16,)] * 4,
        [(1024, 1024, 3)],
    ],
)
def test_gradients_and_models_take_at_most_one_percent_more_than_their_floats(
    shapes: Sequence[tuple[int, ...]],
) -> None:
    tensors = [_floats(*shape) for shape in shapes]
    raw_bytes = sum(tensor.nbytes for tensor in tensors)
    assert raw_bytes >= 10_000
    assert _frame_bytes(_smashed(*tensors)) <= 1.01 * raw_bytes


def _frame_bytes(frame: Frame) -> int:
    """Bytes of all payloads of a frame."""
    chunks = list(encode_chunks(frame, chunk_bytes=DEFAULT_CHUNK_BYTES))
    num_bytes = sum(map(len, chunks))
    assert num_bytes == body_bytes(specs_of(frame.tensors)) + len(chunks) * CHUNK_HEADER.size
    return num_bytes


# Refused


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_malformed_and_nothing_worse(payload: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode_chunk(memoryview(payload))
    with pytest.raises(MalformedMessageError):
        decode_body(bytearray(payload), (TensorSpec("<f4", (50,)),))


def _forged(chunk: bytes, *, body: int, num_chunks: int, data: bytes) -> bytes:
    head = list(CHUNK_HEADER.unpack(chunk[: CHUNK_HEADER.size]))
    head[8:10] = num_chunks, body
    start = CHUNK_HEADER.pack(*head)[:-4]
    return start + zlib.crc32(data, zlib.crc32(start)).to_bytes(4, "little") + data


def test_memory_is_taken_for_bytes_that_came_not_for_bytes_that_were_declared() -> None:
    [chunk] = encode_chunks(_smashed(_floats(100)), chunk_bytes=1000)
    small, huge = (TensorSpec("<f4", (100,)),), (TensorSpec("<f4", (2**15, 2**15)),)
    declares_more = _forged(chunk, body=2**40, num_chunks=1, data=chunk[CHUNK_HEADER.size :])
    body = body_bytes(huge)
    data = bytes(-(-body // 0xFFFF))
    num_chunks = -(-body // len(data))
    begins = _forged(chunk, body=body, num_chunks=num_chunks, data=data)
    tracemalloc.start()
    with pytest.raises(MalformedMessageError, match="were asked for"):
        _feed([declares_more], small)
    assert _feed([begins, begins], huge) == []
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < len(data) + 50_000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<f2"])
def test_a_frame_with_a_nan_or_an_infinity_is_refused(value: float, dtype: str) -> None:
    tensor = np.ones(100, dtype)
    tensor[63] = value
    chunks = list(encode_chunks(_smashed(tensor), chunk_bytes=64))
    assert _feed(chunks[:-1], specs_of([tensor])) == []
    with pytest.raises(MalformedMessageError, match="NaN or infinity in tensor 0"):
        _feed(chunks, specs_of([tensor]))


@pytest.mark.parametrize("label", [-1, 10, 2**40])
def test_a_number_outside_the_range_that_was_asked_for_is_refused(label: int) -> None:
    labels = np.array([0, 9, label])
    specs = (TensorSpec("<i8", (3,), num_values=10),)
    with pytest.raises(MalformedMessageError, match="tensor 0 has values from"):
        _feed(list(encode_chunks(_smashed(labels), chunk_bytes=100)), specs)
    assert _feed(list(encode_chunks(_smashed(labels.clip(0, 9)), chunk_bytes=100)), specs)


@pytest.mark.parametrize(
    "other",
    [
        TensorSpec("<f4", (20, 5)),
        TensorSpec("<i4", (10, 10)),
        TensorSpec("<f4", (10, 10, 1)),
        TensorSpec("<f8", (10, 5)),
        TensorSpec("<f4", (10, 11)),
    ],
)
def test_a_frame_of_another_dtype_or_shape_is_refused(other: TensorSpec) -> None:
    with pytest.raises(MalformedMessageError, match="asked for"):
        _feed(list(encode_chunks(_smashed(_floats(10, 10)), chunk_bytes=100)), (other,))


def test_a_frame_that_was_not_asked_for_is_counted_and_dropped() -> None:
    inbox = FrameInbox(lambda *_: None)
    for chunk in encode_chunks(_smashed(_floats(100)), chunk_bytes=100):
        assert inbox.feed(memoryview(chunk), kind=FrameKind.SMASHED) is None
    assert inbox.num_stale == 5


def test_a_frame_of_one_kind_among_those_of_another_is_refused() -> None:
    tensor = _floats(10)
    [chunk] = encode_chunks(_smashed(tensor), chunk_bytes=100)
    inbox = FrameInbox(lambda *_: specs_of([tensor]))
    with pytest.raises(MalformedMessageError, match="a smashed frame among weights"):
        inbox.feed(memoryview(chunk), kind=FrameKind.WEIGHTS)


def test_more_chunks_than_a_header_can_count_are_refused_before_one_is_sent() -> None:
    with pytest.raises(ValueError, match="chunks"):
        next(encode_chunks(_smashed(_floats(70_000)), chunk_bytes=4))


def test_a_dtype_that_cannot_travel_is_a_sentence() -> None:
    with pytest.raises(ProtocolError, match=r"int16 cannot travel, only of float32, float64"):
        spec_of(np.zeros(3, np.int16))
