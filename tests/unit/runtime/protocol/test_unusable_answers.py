"""What is done about a device whose answer is with the broker, and is none here."""

from dataclasses import replace

import pytest

from runtime.errors import ProtocolError
from runtime.protocol.coordinator import CoordinatorSession
from runtime.protocol.coordinator_events import (
    Arrived,
    AskedFor,
    CoordinatorCommand,
    FrameRequest,
    GiveUp,
    NoteRefusal,
    ReplyArrived,
    SendCommand,
)
from runtime.protocol.events import FrameSent
from runtime.protocol.pending import IN_VAIN, MAX_UNUSABLE
from runtime.protocol.timers import Allowance
from runtime.wire.chunks.questions import Holding
from runtime.wire.frames import Frame, FrameKind, decode_chunk, encode_chunks
from tests.pair import SPEC, tensor_of
from tests.turn import JOIN, JOINED, RUN, step_at

STEP = step_at(0)
REQUEST = FrameRequest(FrameKind.MODEL, STEP, FrameKind.SMASHED, STEP, (SPEC,))
FRAME = Frame(FrameKind.SMASHED, STEP, tensor_of(STEP, 3))
PATIENCE_S = 60.0


def _asked() -> CoordinatorSession:
    """A session whose device has the model, at 100 s."""
    session = CoordinatorSession(run=RUN, patience_s=PATIENCE_S)
    patient = Allowance(0.0, PATIENCE_S, is_learned=False)
    asked = (AskedFor(JOIN, patient), ReplyArrived(JOINED), AskedFor(REQUEST, patient))
    for event in (Arrived("one"), *asked, FrameSent(FrameKind.MODEL, STEP)):
        session.handle(event, 100.0)
    return session


def _sent(number: int) -> Holding:
    return Holding(
        run=STEP.run, round=STEP.round, cluster=STEP.cluster, epoch=STEP.epoch,
        request="model", number=number, state="sent",
    )  # fmt: skip


def test_an_answer_that_can_be_used_as_little_each_time_is_soon_waited_for_no_longer() -> None:
    session = _asked()
    [payload] = encode_chunks(FRAME, chunk_bytes=10_000)
    chunk = decode_chunk(memoryview(payload))
    half = replace(chunk, body_bytes=7)
    for _ in range(MAX_UNUSABLE + 1):
        with pytest.raises(ProtocolError):
            session.frames.add(half)
        session.frames.num_unusable += 1  # By whoever takes the bytes.
    said: list[CoordinatorCommand] = []
    for number in range(1, MAX_UNUSABLE + 2):
        now_s = session.next_timeout()
        session.handle_timeout(now_s)
        said = session.handle(ReplyArrived(_sent(number)), now_s)
    assert said == [NoteRefusal(IN_VAIN), GiveUp(REQUEST, IN_VAIN)]
    assert now_s < 100.0 + 60.0 / 2


def test_whose_answer_is_lost_by_the_broker_is_not_taken_for_one_who_sends_what_is_none() -> None:
    session = _asked()
    for number in range(1, MAX_UNUSABLE + 3):
        session.handle_timeout(session.next_timeout())
        [again] = session.handle(ReplyArrived(_sent(number)), 101.0)
        assert isinstance(again, SendCommand)
