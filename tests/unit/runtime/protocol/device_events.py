"""What happens to a device in a turn of two local epochs, and a session that it happened to."""

from collections.abc import Sequence

import numpy as np

from runtime.protocol.device import DeviceSession
from runtime.protocol.events import (
    CommandArrived,
    DeviceEvent,
    ForwardDone,
    FrameArrived,
    PassOpened,
    Prepared,
    WeightsCollected,
)
from runtime.wire.commands import Join
from runtime.wire.frames import Frame, FrameKind, Tensor, spec_of
from tests.turn import ASSIGNMENT, CLUSTER, JOIN, READY, ROUND, RUN, step_at

W: Tensor = np.arange(4, dtype=np.float32)
SPEC = spec_of(W)
MODEL = FrameArrived("", Frame(FrameKind.MODEL, step_at(0), (W,)))
GRADIENTS = [
    FrameArrived("", Frame(FrameKind.GRADIENT, step_at(epoch), (W + epoch,))) for epoch in (0, 1)
]
ASSIGNED, JOINING = CommandArrived(ASSIGNMENT), CommandArrived(JOIN)
EVALUATION = JOIN.model_copy(update={"purpose": "evaluate", "local_epochs": 1, "cluster": 0xFFFF})
ANOTHERS = ASSIGNMENT.model_copy(update={"run": RUN + 1})
TURN = {"run": RUN, "round": ROUND, "cluster": CLUSTER}
LOCALLY = JOIN.model_copy(update={"purpose": "train_locally"})


def opened(join: Join) -> PassOpened:
    """Say that the device has opened a turn."""
    return PassOpened(join, (SPEC,), (SPEC,))


TO_JOINED: Sequence[DeviceEvent] = (ASSIGNED, Prepared(READY), JOINING, opened(JOIN))
TO_GRADIENT = (*TO_JOINED, MODEL, ForwardDone(step_at(0), (W,)))
TO_WEIGHTS = (
    *TO_GRADIENT,
    GRADIENTS[0],
    ForwardDone(step_at(1), (W,)),
    GRADIENTS[1],
    WeightsCollected(step_at(1), (W,)),
)


def after(events: Sequence[DeviceEvent]) -> DeviceSession:
    """Tell a new session what happened."""
    session = DeviceSession()
    for event in events:
        session.handle(event)
    return session
