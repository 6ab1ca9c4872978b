"""What a device's session makes of work that failed."""

from runtime.protocol.device import DeviceSession
from runtime.protocol.events import (
    CommandArrived,
    FrameArrived,
    PassOpened,
    Prepare,
    Prepared,
    SendReply,
    WorkFailed,
)
from runtime.wire.commands import Refused
from runtime.wire.fields import MAX_WORDS
from runtime.wire.frames import Frame, FrameKind, spec_of
from tests.turn import ASSIGNMENT, JOIN, READY, RUN, device_side, step_at


def _at_work() -> DeviceSession:
    session, weights = DeviceSession(), device_side()
    specs = tuple(spec_of(tensor) for tensor in weights)
    for event in (
        CommandArrived(ASSIGNMENT),
        Prepared(READY),
        CommandArrived(JOIN),
        PassOpened(JOIN, specs, specs),
        FrameArrived("", Frame(FrameKind.MODEL, step_at(0), weights)),
    ):
        session.handle(event)
    return session


def test_failed_work_is_refused_in_words_that_can_be_sent_and_may_be_asked_for_again() -> None:
    session = _at_work()
    reason = "no such file: \udcff\x1b[2J\n" + "x" * 10_000
    [reply] = session.handle(WorkFailed(RUN, reason))
    assert isinstance(reply, SendReply)
    assert isinstance(reply.message, Refused)
    assert reply.message.reason.isprintable()
    assert len(reply.message.reason) == MAX_WORDS
    assert Refused.decode(reply.message.encode()) == reply.message
    assert session.handle(CommandArrived(ASSIGNMENT)) == [Prepare(ASSIGNMENT)]


def test_failed_work_of_another_run_is_nobodys_business() -> None:
    session = _at_work()
    state = dict(vars(session))
    assert session.handle(WorkFailed(RUN + 1, "too late")) == []
    assert dict(vars(session)) == state
