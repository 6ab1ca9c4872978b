"""How long an answer may arrive: as its bytes take on the link that was measured, and a margin."""

import pytest

from edge_coordinator.devices.answer_times import MOST_PATIENCES, MOST_TRANSFERS, AnswerTimes
from edge_coordinator.devices.deadlines import Answer, Question
from runtime.protocol.coordinator import CoordinatorSession
from runtime.protocol.coordinator_events import (
    Arrived,
    AskedFor,
    Deliver,
    FrameRequest,
    GiveUp,
    PartArrived,
    ReplyArrived,
)
from runtime.protocol.events import FrameArrived, FrameSent
from runtime.wire.chunks.questions import Holding
from runtime.wire.frames import Frame, FrameKind, TensorSpec, body_bytes
from tests.pair import tensor_of
from tests.turn import CLUSTER, JOIN, JOINED, ROUND, RUN, step_at

PATIENCE_S, MARGIN_S, FORWARD_S = 60.0, 15.0, 40.0
STEP = step_at(0)
WEIGHTS = (TensorSpec("<f4", (250_000,)),)
NUM_BITS = 8 * body_bytes(WEIGHTS)
REQUEST = FrameRequest(FrameKind.GRADIENT, STEP, FrameKind.WEIGHTS, STEP, WEIGHTS)
HOLDING = Holding.model_validate(
    {"run": RUN, "round": ROUND, "cluster": CLUSTER, "epoch": 0, "request": "gradient",
     "number": 1, "state": "sending", "missing": ()}
)  # fmt: skip


def _times() -> AnswerTimes:
    return AnswerTimes(patience_s=PATIENCE_S, least_margin_s=MARGIN_S)


def _session(
    times: AnswerTimes,
    request: FrameRequest = REQUEST,
    *,
    up_bps: float | None,
    num_devices: int = 1,
) -> CoordinatorSession:
    """Have a device in its turn be asked for its first answer, at 0 s."""
    question = Question(Answer.LAST, {}, num_devices=num_devices)
    allowance = times.allow_frame(question, "a", request, up_bps=up_bps)
    session = CoordinatorSession(run=RUN, patience_s=PATIENCE_S)
    for event in (
        *(Arrived("one"), AskedFor(JOIN, allowance), ReplyArrived(JOINED)),
        *(AskedFor(request, allowance), FrameSent(FrameKind.GRADIENT, STEP)),
    ):
        session.handle(event, 0.0)
    return session


def _parts(session: CoordinatorSession, *, bps: float, chunk_bits: int = 512) -> float | None:
    """Have parts arrive from the end of forward on; when it was late, or None if it was not."""
    now_s = FORWARD_S
    for _ in range(0, NUM_BITS, chunk_bits):
        if any(isinstance(each, GiveUp) for each in session.handle_timeout(now_s)):
            return now_s
        session.handle(PartArrived(FrameKind.WEIGHTS, STEP, is_last=False), now_s)
        session.handle(ReplyArrived(HOLDING), now_s)
        now_s += chunk_bits / bps
    return None


def _until_late(session: CoordinatorSession) -> float:
    """Let time pass until the device is late; when that is."""
    while True:
        now_s = session.next_timeout()
        if any(isinstance(each, GiveUp) for each in session.handle_timeout(now_s)):
            return now_s


@pytest.mark.parametrize("num_devices", [1, 5])
@pytest.mark.parametrize("up_bps", [1e6, 1e7])
def test_an_answer_is_in_time_at_the_measured_rate_that_all_share_and_late_at_a_trickle(
    up_bps: float, num_devices: int
) -> None:
    def session() -> CoordinatorSession:
        return _session(_times(), up_bps=up_bps, num_devices=num_devices)

    honest_bps = up_bps / num_devices
    assert _parts(session(), bps=honest_bps / MOST_TRANSFERS, chunk_bits=80_000) is None
    late_s = _parts(session(), bps=1024.0)
    assert late_s is not None
    assert late_s - FORWARD_S <= MARGIN_S + MOST_TRANSFERS * NUM_BITS / honest_bps + 0.5


def test_a_link_that_nobody_has_measured_gets_the_patience_once_and_not_with_each_part() -> None:
    late_s = _parts(_session(_times(), up_bps=None), bps=1024.0)
    assert late_s is not None
    slow_s = MOST_TRANSFERS * NUM_BITS / 400_000
    assert late_s - FORWARD_S == pytest.approx(PATIENCE_S + slow_s, abs=0.5)


def test_a_claim_of_a_slow_link_is_worth_what_answers_have_not_shown_to_be_wrong() -> None:
    times, trickle_bps = _times(), 1024.0
    claimed_s = _parts(_session(times, up_bps=trickle_bps), bps=trickle_bps)
    assert claimed_s is not None
    assert claimed_s - FORWARD_S <= MARGIN_S + MOST_PATIENCES * PATIENCE_S + 0.5
    frame = Frame(FrameKind.WEIGHTS, STEP, ())
    times.note_rate("a", Deliver(REQUEST, frame, took_s=2.0))
    shown_s = _parts(_session(times, up_bps=trickle_bps), bps=trickle_bps)
    assert shown_s is not None
    assert shown_s - FORWARD_S == pytest.approx(MARGIN_S + MOST_TRANSFERS * 2.0, abs=0.5)
    times.note_rate("a", Deliver(REQUEST, frame, took_s=None))


def test_each_micro_batch_has_the_time_of_its_own_bytes_and_another_does_not_renew_it() -> None:
    request = FrameRequest(FrameKind.GRADIENT, STEP, FrameKind.WEIGHTS, STEP, WEIGHTS,
                           more_specs=(WEIGHTS,) * 3)  # fmt: skip
    transfer_s = MARGIN_S + MOST_TRANSFERS * NUM_BITS / 1e6

    def late_s(*, is_whole: bool) -> float:
        session, now_s = _session(_times(), request, up_bps=1e6), 0.0
        for part in range(4):
            now_s = FORWARD_S * (1 + part)
            session.handle(PartArrived(FrameKind.WEIGHTS, STEP.part(part), is_last=False), now_s)
            if is_whole and part < 3:
                frame = Frame(FrameKind.WEIGHTS, STEP.part(part), tensor_of(STEP, 1))
                session.handle(FrameArrived("", frame), now_s + transfer_s / 2)
        return _until_late(session)

    assert late_s(is_whole=True) == pytest.approx(4 * FORWARD_S + transfer_s)
    assert late_s(is_whole=False) == pytest.approx(FORWARD_S + transfer_s)
