"""Codecs: the bytes that were promised, within the error that was stated, the same everywhere."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import MalformedMessageError, SettingsError
from runtime.wire.chunks.inbox import FrameInbox
from runtime.wire.codecs.codec import LARGEST, Layout, layout_of_samples, layout_of_weights
from runtime.wire.codecs.dither import add_dither
from runtime.wire.codecs.names import TurnCodecs
from runtime.wire.codecs.offered import choice_of
from runtime.wire.codecs.turn import TurnCoder
from runtime.wire.frames import (
    CHUNK_HEADER,
    Frame,
    FrameKind,
    StepId,
    Tensor,
    TensorSpec,
    body_bytes,
    encode_chunks,
    specs_of,
)

NAMES = ["fp32", "fp16", "bf16", "int8", "int4", "topk:0.1", "randtopk:0.1"]
LayoutOf = Callable[[tuple[int, ...]], Layout]
STEP = StepId(run=7, round=3, cluster=1, epoch=0)
POOL1 = (16, 6, 14, 14)
"""Smashed data of LeNet at a mini-batch of 16."""
KEY = (0, 9, 3)
"""An address of random numbers."""


def _generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(seed))


def _floats(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return _generator(seed).standard_normal(shape).astype(np.float32)


def _coder(**names: str) -> TurnCoder:
    return TurnCoder(TurnCodecs(**names), seed=0, round_=3)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    shape=st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple),
    scale=st.sampled_from([0.0, 1e-30, 1e-6, 1.0, 1e6, 1e30]),
    layout_of=st.sampled_from([layout_of_samples, layout_of_weights]),
)
def test_parts_have_the_shapes_that_were_promised_and_come_back_finite(
    name: str, shape: tuple[int, ...], scale: float, layout_of: LayoutOf
) -> None:
    codec = choice_of(name).codec
    layout = layout_of(shape)
    x = np.float32(scale) * _floats(shape)
    parts = codec.encode(x, layout, KEY)
    assert [(part.dtype.newbyteorder("<").str, part.shape) for part in parts] == [
        (spec.dtype, spec.shape) for spec in codec.specs(layout)
    ]
    decoded = codec.decode(parts, layout)
    assert decoded.shape == shape
    assert decoded.dtype == np.float32
    assert np.isfinite(decoded).all()
    if scale <= 1e6 and codec.relative_error < 1:
        span = 2 * np.abs(x).max(initial=0.0)  # At least the range of every group.
        assert np.abs(decoded - x).max(initial=0.0) <= codec.relative_error * span * 1.001 + 1e-30


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_stochastic_rounding_is_right_on_average(name: str) -> None:
    codec, layout = choice_of(name).codec, layout_of_samples(POOL1)
    x = _floats(POOL1)
    draws = [codec.decode(codec.encode(x, layout, (0, s)), layout) for s in range(200)]
    step = codec.relative_error * float(np.ptp(x))
    # The mean over all values and draws has a deviation of at most half a step by their root.
    assert abs(float(np.mean(draws) - x.mean())) < 4 * 0.5 * step / np.sqrt(200 * x.size)
    # And each value by itself, over the draws: the largest of 18,816 such means is within 5 of it.
    assert np.abs(np.mean(draws, axis=0) - x).max() < 5 * 0.5 * step / np.sqrt(200)


def test_the_errors_of_rounding_of_two_values_or_two_addresses_have_nothing_in_common() -> None:
    dithers = np.zeros((400, 3), np.float32)  # [address, value]
    for address, values in enumerate(dithers):
        add_dither(values, (0, address))
    assert 0 < dithers.min() < 0.01
    assert 0.99 < dithers.max() < 1 - 1e-4  # Nearer to 1 a value could go up to a level too many.
    centred = dithers - 0.5
    next_value, next_address = centred[:, 0] * centred[:, 1], centred[1:, 0] * centred[:-1, 0]
    for products in (next_value, next_address):  # Each has a mean of 0 and a deviation of 1/12.
        assert abs(products.mean()) < 4 / 12 / np.sqrt(len(products))


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_the_ends_of_a_channel_come_back_as_they_are_however_far_from_zero(name: str) -> None:
    codec, layout = choice_of(name).codec, layout_of_samples((70_000, 1, 2))
    for low, high in [(0, 1), (1e6, 1e6 + 1), (-3e30, 3e30), (5, 5)]:
        x = np.tile(np.array([low, high], np.float32), 70_000).reshape(layout.shape)
        decoded = codec.decode(codec.encode(x, layout, KEY), layout)
        wanted = np.clip(x, -LARGEST / 2, LARGEST / 2)
        assert np.abs(decoded - wanted).max() <= np.float32(high - low) * 1e-6


@pytest.mark.parametrize(
    ("name", "num_bytes"),
    [
        ("fp32", 16 * 6 * 14 * 14 * 4),
        ("fp16", 4 + 16 * 6 * 14 * 14 * 2),
        ("bf16", 16 * 6 * 14 * 14 * 2),
        ("int8", 2 * 6 * 4 + 16 * 6 * 14 * 14),
        ("int4", 2 * 6 * 4 + 16 * 6 * 14 * 14 // 2),
        ("topk:0.1", 4 + 16 * 118 * (2 + 2)),
        ("randtopk:0.1", 4 + 16 * 118 * (2 + 2)),
    ],
)
def test_smashed_data_take_these_bytes(name: str, num_bytes: int) -> None:
    codec, layout = choice_of(name).codec, layout_of_samples(POOL1)
    assert sum(spec.num_bytes for spec in codec.specs(layout)) == num_bytes
    parts = codec.encode(_floats(POOL1), layout, KEY)
    assert sum(part.nbytes for part in parts) == num_bytes


def test_top_k_keeps_the_largest_and_of_equal_ones_the_first() -> None:
    codec, layout = choice_of("topk:0.5").codec, layout_of_samples((2, 4))
    x = np.array([[1, -8, 1, 1], [0, 0, 0, 0]], np.float32)
    decoded = codec.decode(codec.encode(x, layout, KEY), layout)
    assert decoded.tolist() == [[1, -8, 0, 0], [0, 0, 0, 0]]


def test_randomised_top_k_sends_others_as_often_as_the_paper_says() -> None:
    codec, shape = choice_of("randtopk:0.1").codec, (500, 1000)
    x = np.tile(np.arange(1, 1001, dtype=np.float32), (500, 1))
    layout = layout_of_samples(shape)
    decoded = codec.decode(codec.encode(x, layout, KEY), layout)
    kept = decoded > 0
    assert (kept.sum(axis=1) == 100).all()
    others = kept[:, :900].sum()  # Binomial: 50,000 places, each with probability 0.1.
    assert abs(others - 5000) < 5 * np.sqrt(50_000 * 0.1 * 0.9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lossless", ["", "+zlib"])
def test_a_frame_that_is_encoded_again_has_the_same_bits(name: str, lossless: str) -> None:
    tensors = (np.maximum(_floats(POOL1), 0), np.arange(16, dtype=np.uint8))
    coder = _coder(smashed=name + lossless)
    first, again, other = (
        coder.encode(FrameKind.SMASHED, tensors, device=device, epoch=0)
        for device in ("pi-1", "pi-1", "pi-2")
    )
    assert [part.tobytes() for part in first] == [part.tobytes() for part in again]
    if name in ("int8", "int4", "randtopk:0.1"):
        assert [part.tobytes() for part in first] != [part.tobytes() for part in other]


def test_what_a_model_loses_on_its_way_down_is_carried_by_the_coordinator() -> None:
    """A device that changes nothing sends no difference, and leaves the model as it was."""
    model = (_floats((6, 1, 5, 5)), _floats((6,)), np.array(3))
    plain, coder = specs_of(model), _coder(model="int8", weights="int8")
    sent = coder.encode(FrameKind.MODEL, model, device="pi-1,pi-2", epoch=0)
    received = coder.decode(FrameKind.MODEL, sent, plain)
    assert (received[0] != model[0]).any()
    assert received[1] is model[1]  # Of one axis: as it is.
    up = coder.encode(FrameKind.WEIGHTS, received, device="pi-1", epoch=2, before=received)
    back = coder.decode(FrameKind.WEIGHTS, up, plain, before=model)
    assert back[0].tobytes() == model[0].tobytes()


def test_an_unknown_codec_is_refused_in_a_sentence() -> None:
    for name in ("int3", "top", "int8:2", "fp32+lzma", ""):
        with pytest.raises(SettingsError, match=r"no codec is named .* there are fp32, fp16"):
            choice_of(name)
    for name in ("topk", "topk:2", "topk:0", "topk:x", "topk:nan+zlib"):
        with pytest.raises(
            SettingsError, match=r"after topk: comes a fraction above 0 and below 1"
        ):
            choice_of(name)


# Hostile


def _fed(parts: tuple[Tensor, ...], specs: tuple[TensorSpec, ...]) -> Frame:
    frame = Frame(FrameKind.SMASHED, STEP, parts)
    inbox = FrameInbox(lambda *_: specs)
    chunks = encode_chunks(frame, chunk_bytes=1 << 20)
    [whole] = [inbox.feed(memoryview(chunk), kind=FrameKind.SMASHED) for chunk in chunks]
    assert whole is not None
    return whole


PLAIN = (TensorSpec("<f4", POOL1), TensorSpec("|u1", (16,), num_values=10))
SOUND = (_floats(POOL1), np.arange(16, dtype=np.uint8) % 10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lossless", ["", "+zlib"])
def test_a_frame_arrives_as_what_was_meant(name: str, lossless: str) -> None:
    coder = _coder(smashed=name + lossless)
    specs = coder.specs(FrameKind.SMASHED, PLAIN)
    sent = coder.encode(FrameKind.SMASHED, SOUND, device="pi-1", epoch=0)
    came = _fed(sent, specs)
    data, labels = coder.decode(FrameKind.SMASHED, came.tensors, PLAIN)
    meant = coder.decode(FrameKind.SMASHED, coder.unpacked(FrameKind.SMASHED, sent, PLAIN), PLAIN)
    assert data.tobytes() == meant[0].tobytes()
    assert labels.tobytes() == SOUND[1].tobytes()
    if not lossless:
        [chunk] = encode_chunks(Frame(FrameKind.SMASHED, STEP, sent), chunk_bytes=1 << 20)
        assert len(chunk) == CHUNK_HEADER.size + body_bytes(specs)


@pytest.mark.parametrize(
    ("name", "place", "wrong"),
    [
        ("fp16", 0, np.nan),
        ("fp16", 0, 2 * LARGEST),
        ("fp16", 1, np.inf),
        ("bf16", 0, 0x7F80),
        ("bf16", 0, 0xFFC1),
        ("int8", 0, np.inf),
        ("int8", 1, 2 * LARGEST),
        ("topk:0.1", 2, 1176),
    ],
)
def test_parts_that_would_give_no_numbers_are_refused(name: str, place: int, wrong: float) -> None:
    coder = _coder(smashed=name)
    parts = coder.encode(FrameKind.SMASHED, SOUND, device="pi-1", epoch=0)
    parts[place].reshape(-1)[-1] = wrong
    with pytest.raises(MalformedMessageError, match=f"tensor {place}"):
        _fed(parts, coder.specs(FrameKind.SMASHED, PLAIN))


def test_whatever_is_within_the_ranges_of_its_specs_comes_back_finite() -> None:
    for name in NAMES[1:]:
        codec, layout = choice_of(name).codec, layout_of_samples(POOL1)
        extreme = [
            np.full(spec.shape, spec.largest or _most(spec.dtype), spec.dtype)
            for spec in codec.specs(layout)
            if not spec.is_bfloat16 and spec.num_values is None
        ]
        if len(extreme) == len(codec.specs(layout)):
            assert np.isfinite(codec.decode(extreme, layout)).all()


def _most(dtype: str) -> float:
    kind = np.dtype(dtype)
    return float(np.finfo(kind).max if kind.kind == "f" else np.iinfo(kind).max)


def _packed(content: bytes) -> tuple[Tensor, ...]:
    return (np.frombuffer(content, np.uint8),)


@pytest.mark.parametrize(
    "content",
    [
        b"no zlib",
        zlib.compress(bytes(10)),
        zlib.compress(bytes(10_000_000)),  # A thousand times what was asked for, in 10 kB.
        zlib.compress(bytes(18_928))[:-5],
        zlib.compress(bytes(18_928)) + b"more",
    ],
    ids=["no zlib", "short", "bomb", "cut off", "trailing"],
)
def test_compressed_frames_that_are_not_what_was_asked_for_are_refused(content: bytes) -> None:
    specs = _coder(smashed="int8+zlib").specs(FrameKind.SMASHED, PLAIN)
    with pytest.raises(MalformedMessageError):
        _fed(_packed(content), specs)


def test_a_compressed_frame_longer_than_its_tensors_is_refused_unread() -> None:
    specs = _coder(smashed="int8+zlib").specs(FrameKind.SMASHED, PLAIN)
    with pytest.raises(MalformedMessageError, match="were asked for"):
        _fed(_packed(bytes(body_bytes(specs) + 1)), specs)


def test_a_body_whose_header_lies_about_its_length_is_refused() -> None:
    specs = _coder(smashed="int8+zlib").specs(FrameKind.SMASHED, PLAIN)
    frame = Frame(FrameKind.SMASHED, STEP, _packed(bytes(100)))
    [chunk] = encode_chunks(frame, chunk_bytes=1 << 20)
    body = bytearray(chunk[CHUNK_HEADER.size :])
    body[4:8] = struct.pack("<I", 2**31)
    head = chunk[: CHUNK_HEADER.size - 4]
    lying = head + zlib.crc32(body, zlib.crc32(head)).to_bytes(4, "little") + body
    inbox = FrameInbox(lambda *_: specs)
    with pytest.raises(MalformedMessageError):
        inbox.feed(memoryview(lying), kind=FrameKind.SMASHED)
