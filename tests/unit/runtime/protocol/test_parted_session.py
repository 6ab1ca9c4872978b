"""A device's half of the conversation where a mini-batch goes in micro-batches."""

import numpy as np

from runtime.protocol.device import DeviceSession
from runtime.protocol.events import (
    BackwardDone,
    CommandArrived,
    DeviceCommand,
    ForwardDone,
    FrameArrived,
    LoadModel,
    PassOpened,
    Prepared,
    RunBackward,
    RunForward,
    SendFrame,
)
from runtime.wire.frames import Frame, FrameKind, StepId, Tensor, spec_of
from tests.turn import ASSIGNMENT, CLUSTER, JOIN, READY, ROUND, RUN

W: Tensor = np.arange(4, dtype=np.float32)
SPEC = spec_of(W)
FIRST = StepId(RUN, ROUND, CLUSTER, 0)


def test_micro_batches_go_back_in_order_once_all_have_gone_out() -> None:
    join = JOIN.model_copy(update={"micro_batches": 2})
    session = DeviceSession()
    for event in (CommandArrived(ASSIGNMENT), Prepared(READY), CommandArrived(join)):
        session.handle(event)
    session.handle(PassOpened(join, (SPEC,), (SPEC,), ((SPEC,),)))
    first, other = FIRST, FIRST.part(1)

    def gradient(step: StepId) -> list[DeviceCommand]:
        return session.handle(FrameArrived("", Frame(FrameKind.GRADIENT, step, (W,))))

    model = FrameArrived("", Frame(FrameKind.MODEL, first, (W,)))
    assert session.handle(model) == [LoadModel((W,)), RunForward(first)]
    assert gradient(first) == []  # It has not gone out yet: nobody can have it.
    sent = [SendFrame(Frame(FrameKind.SMASHED, step, (W,))) for step in (first, other)]
    assert session.handle(ForwardDone(first, (W,))) == [sent[0], RunForward(other)]
    assert gradient(first) == []  # The device computes forward still.
    backward = [RunBackward(first, (W,), is_last=False)]
    assert session.handle(ForwardDone(other, (W,))) == [sent[1], *backward]
    assert gradient(other) == []
    last = [RunBackward(other, (W,), is_last=True), RunForward(StepId(RUN, ROUND, CLUSTER, 1))]
    assert session.handle(BackwardDone(first)) == last
    assert session.num_stale == 1
