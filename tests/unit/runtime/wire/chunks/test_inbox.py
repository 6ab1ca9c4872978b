"""A frame of its chunks: what is missing of it, and which chunks can be of it at all."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from runtime.errors import MalformedMessageError
from runtime.wire.chunks.inbox import Reassembly, numbers_of, runs_of
from runtime.wire.frames import (
    Chunk,
    Frame,
    FrameKind,
    StepId,
    TensorSpec,
    body_bytes,
    decode_chunk,
    encode_chunks,
    specs_of,
)

STEP = StepId(run=7, round=3, cluster=1, epoch=0)
TENSORS = (np.arange(20, dtype=np.float32),)
SPECS = specs_of(TENSORS)
BODY = body_bytes(SPECS)
NUM_CHUNKS = 8


def _chunks() -> list[Chunk]:
    frame = Frame(FrameKind.SMASHED, STEP, TENSORS)
    payloads = encode_chunks(frame, chunk_bytes=-(-BODY // NUM_CHUNKS))
    return [decode_chunk(memoryview(payload)) for payload in payloads]


def _fed(indices: Sequence[int]) -> Reassembly:
    reassembly, chunks = Reassembly(), _chunks()
    assert len(chunks) == NUM_CHUNKS
    for index in indices:
        assert reassembly.feed(chunks[index], SPECS) is None
    return reassembly


@pytest.mark.parametrize(
    ("came", "missing"),
    [
        ([], ()),
        ([0], ((1, 7),)),
        ([7], ((0, 6),)),
        ([5, 2, 2], ((0, 1), (3, 4), (6, 7))),
        ([1, 3, 5, 7], ((0, 0), (2, 2), (4, 4), (6, 6))),
        ([0, 1, 2, 4, 5, 6, 7], ((3, 3),)),
    ],
)
def test_what_has_not_come_of_a_frame_is_named_by_its_runs(
    came: list[int], missing: tuple[tuple[int, int], ...]
) -> None:
    assert _fed(came).missing(FrameKind.SMASHED, STEP) == missing
    absent = set(range(NUM_CHUNKS)) - set(came) if came else set()
    assert numbers_of(missing) == absent
    assert runs_of(sorted(absent)) == missing


def test_nothing_is_missing_of_a_frame_that_is_another_or_whole() -> None:
    reassembly = _fed([0, 1])
    assert reassembly.missing(FrameKind.WEIGHTS, STEP) == ()
    assert reassembly.missing(FrameKind.SMASHED, replace(STEP, epoch=1)) == ()
    frames = [reassembly.feed(chunk, SPECS) for chunk in _chunks()[2:]]
    assert [frame is not None for frame in frames] == [False] * 5 + [True]
    assert reassembly.missing(FrameKind.SMASHED, STEP) == ()
    assert reassembly.feed(_chunks()[0], SPECS) is None, "it begins anew"


def _chunk(index: int, num_chunks: int, num_bytes: int, *, body: int = BODY) -> Chunk:
    data = memoryview(bytes(num_bytes))
    return Chunk(FrameKind.SMASHED, STEP, index, num_chunks, body, data)


@pytest.mark.parametrize(
    ("index", "num_chunks", "num_bytes"),
    [
        (0, 1, BODY - 1),
        (0, 1, BODY + 1),
        (0, 2, 0),
        (1, 2, 0),
        (0, 2, BODY // 2 - 1),
        (0, 2, BODY),
        (1, 2, BODY // 2 + 1),
        (2, 3, 1),
        (2, 3, BODY),
    ],
)
def test_a_chunk_that_does_not_fit_into_its_body_is_refused(
    index: int, num_chunks: int, num_bytes: int
) -> None:
    assert BODY % 2 == 0
    with pytest.raises(MalformedMessageError, match=r"does not fit|asked for"):
        Reassembly().feed(_chunk(index, num_chunks, num_bytes), SPECS)


@pytest.mark.parametrize("num_bytes", [BODY // 2, BODY // 2 - 1])
def test_a_last_chunk_may_be_as_long_as_the_others_or_shorter(num_bytes: int) -> None:
    reassembly = Reassembly()
    assert reassembly.feed(_chunk(1, 2, num_bytes), SPECS) is None
    assert reassembly.missing(FrameKind.SMASHED, STEP) == ((0, 0),)


def test_only_a_frame_of_packed_bytes_may_be_shorter_than_asked_and_none_longer() -> None:
    packed = (TensorSpec("|u1", (80,), holds=SPECS),)
    most = body_bytes(packed)
    for body, specs in [(BODY - 1, SPECS), (BODY + 1, SPECS), (most + 1, packed)]:
        with pytest.raises(MalformedMessageError, match=f"a smashed frame of {body} bytes"):
            Reassembly().feed(_chunk(0, 2, body // 2, body=body), specs)
    for body in (most, most - 2):
        assert Reassembly().feed(_chunk(0, 2, body // 2, body=body), packed) is None
