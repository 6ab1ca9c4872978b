"""The device's half of the conversation: what each event means in each state, parts included."""

import pickle
from collections.abc import Sequence

import numpy as np
import pytest

from runtime.errors import UnexpectedEventError
from runtime.protocol.device import DeviceSession, SessionState
from runtime.protocol.events import (
    BackwardDone,
    CommandArrived,
    DeviceEvent,
    DeviceLost,
    ForwardDone,
    FrameArrived,
    FrameSent,
    GraphsMissing,
    PartCame,
    PassOpened,
    Prepared,
    WeightsCollected,
    WorkFailed,
)
from runtime.wire.chunks.questions import Inquire, SendAgain
from runtime.wire.commands import GraphsOffer, Join, Stop
from runtime.wire.frames import Frame, FrameKind, StepId, Tensor, spec_of
from tests.turn import ASSIGNMENT, CLUSTER, JOIN, READY, ROUND, RUN, step_at

W: Tensor = np.arange(4, dtype=np.float32)
SPEC = spec_of(W)
ONE, TWO = step_at(0), step_at(1)
OFFER = GraphsOffer(digest="ab" * 32, num_bytes=(1, 1, 1))
TURN = JOIN.model_copy(update={"micro_batches": 2, "graphs": OFFER})
"""Two local epochs of two micro-batches each, on a device that needs graphs."""
PLACE = {"run": RUN, "round": ROUND, "cluster": CLUSTER, "epoch": 0}


def _join(**other: int) -> CommandArrived:
    return CommandArrived(TURN.model_copy(update=other))


def _opened(join: Join) -> PassOpened:
    return PassOpened(join, (SPEC,), (SPEC,), ((SPEC,),))


def _came(kind: FrameKind, step: StepId) -> FrameArrived:
    return FrameArrived("", Frame(kind, step, (W,)))


def _asked(kind: str) -> CommandArrived:
    return CommandArrived(Inquire.model_validate(PLACE | {"request": kind, "number": 1}))


def _again(kind: str, epoch: int) -> CommandArrived:
    message = PLACE | {"answer": kind, "epoch": epoch, "chunks": ((0, 0),)}
    return CommandArrived(SendAgain.model_validate(message))


JOINING: Sequence[DeviceEvent] = (CommandArrived(ASSIGNMENT), Prepared(READY), _join())
WITH_MODEL = (*JOINING, _opened(TURN), _came(FrameKind.MODEL, ONE))
BOTH_OUT = (*WITH_MODEL, ForwardDone(ONE, (W,)), ForwardDone(ONE.part(1), (W,)))
ONE_BACK = (*BOTH_OUT, _came(FrameKind.GRADIENT, ONE))
BOTH_BACK = (*ONE_BACK, BackwardDone(ONE), _came(FrameKind.GRADIENT, ONE.part(1)))
LAST_OUT = (*BOTH_BACK, ForwardDone(TWO, (W,)), ForwardDone(TWO.part(1), (W,)))
LAST_BACK = (
    *(*LAST_OUT, _came(FrameKind.GRADIENT, TWO), BackwardDone(TWO)),
    _came(FrameKind.GRADIENT, TWO.part(1)),
)
STATES: dict[str, tuple[SessionState, Sequence[DeviceEvent]]] = {
    "a": (SessionState.UNASSIGNED, ()),
    "b": (SessionState.PREPARING, JOINING[:1]),
    "c": (SessionState.READY, JOINING[:2]),
    "d": (SessionState.OPENING, JOINING),
    "e": (SessionState.AWAITING_GRAPHS, (*JOINING, GraphsMissing(TURN, OFFER))),
    "f": (SessionState.AWAITING_MODEL, WITH_MODEL[:-1]),
    "g": (SessionState.COMPUTING, WITH_MODEL),  # The first micro-batch, forward.
    "h": (SessionState.COMPUTING, BOTH_OUT[:-1]),  # The second.
    "i": (SessionState.AWAITING_GRADIENT, BOTH_OUT),
    "j": (SessionState.COMPUTING, ONE_BACK),  # The first, backward.
    "k": (SessionState.AWAITING_GRADIENT, (*ONE_BACK, BackwardDone(ONE))),
    "l": (SessionState.COMPUTING, BOTH_BACK),  # The next local epoch.
    "m": (SessionState.COMPUTING, LAST_BACK),  # Its model is handed out.
    "n": (SessionState.FINISHED, (*LAST_BACK, WeightsCollected(TWO, (W,)))),
}
EVENTS: dict[str, DeviceEvent] = {
    "the job": CommandArrived(ASSIGNMENT),
    "another job": CommandArrived(ASSIGNMENT.model_copy(update={"run": RUN + 1})),
    "the turn": _join(),
    "a later turn": _join(cluster=CLUSTER + 1),
    "an earlier turn": _join(cluster=CLUSTER - 1),
    "a turn of another run": _join(run=RUN + 1),
    "the end": CommandArrived(Stop(run=RUN)),
    "the end of another run": CommandArrived(Stop(run=RUN + 1)),
    "prepared": Prepared(READY),
    "prepared for another run": Prepared(READY.model_copy(update={"run": RUN + 1})),
    "opened": _opened(TURN),
    "another turn opened": _opened(JOIN),
    "graphs missing": GraphsMissing(TURN, OFFER),
    "graphs": _came(FrameKind.GRAPHS, ONE),
    "model": _came(FrameKind.MODEL, ONE),
    "another model": _came(FrameKind.MODEL, TWO),
    "gradient 1": _came(FrameKind.GRADIENT, ONE),
    "gradient 2": _came(FrameKind.GRADIENT, ONE.part(1)),
    "gradient 3": _came(FrameKind.GRADIENT, ONE.part(2)),
    "a later gradient": _came(FrameKind.GRADIENT, TWO),
    "forward 1": ForwardDone(ONE, (W,)),
    "forward 2": ForwardDone(ONE.part(1), (W,)),
    "forward of the next": ForwardDone(TWO, (W,)),
    "backward": BackwardDone(ONE),
    "backward of another": BackwardDone(StepId(RUN, ROUND + 1, CLUSTER, 0)),
    "handed out": WeightsCollected(TWO, (W,)),
    "asked for the model": _asked("model"),
    "asked for the gradient": _asked("gradient"),
    "asked for the graphs": _asked("graphs"),
    "smashed data lost": _again("smashed", 0),
    "weights lost": _again("weights", 1),
    "part of the model": PartCame(FrameKind.MODEL, ONE),
    "part of a gradient": PartCame(FrameKind.GRADIENT, ONE.part(1)),
    "smashed data sent": FrameSent(FrameKind.SMASHED, ONE),
    "failed": WorkFailed(RUN, "no memory"),
    "failed for another run": WorkFailed(RUN + 1, "no memory"),
}


LETTERS = dict(zip(SessionState, "UPROGMCWF", strict=True))


MEANINGS = """
                            abcdefghijklmn
the job                     brrrrrrrrrrrrr
another job                 PPPPPPPPPPPPPP
the turn                    uxd.rrrrrrrrrr
a later turn                uxOOOOOOOOOOOO
an earlier turn             uxOuuuuuuuuuuu
a turn of another run       uuuuuuuuuuuuuu
the end                     xaaaaaaaaaaaaa
the end of another run      xxxxxxxxxxxxxx
prepared                    .c............
prepared for another run    ..............
opened                      ...f..........
another turn opened         ..............
graphs missing              ...e..........
graphs                      xxxxdxxxxxxxxx
model                       xxxxxg.....xxx
another model               xxxxxxxxxxxxxx
gradient 1                  xxxxxxxCjxx.xx
gradient 2                  xxxxxxxxWCl.xx
gradient 3                  xxxxxxxxxxx.xx
a later gradient            xxxxxxxxxxxx..
forward 1                   ......h.......
forward 2                   .......i......
forward of the next         ...........C..
backward                    .........k....
backward of another         ..............
handed out                  ............n.
asked for the model         uuuxxrrrrrrxxx
asked for the gradient      uuuuuuxrrrrrxx
asked for the graphs        uuurrrrrrrrrrr
smashed data lost           uuuxxxx..xxxxx
weights lost                uuuxxxxxxxxxx.
part of the model           xxxxxrrrrrrxxx
part of a gradient          xxxxxxxxrrrrxx
smashed data sent           .......CW.....
failed                      .aaaaaaaaaaaaa
failed for another run      ..............
"""
"""A letter of `STATES`: the event leads there; a capital of `LETTERS`: to another session in such a
state. Nothing changes where a repeat is answered again (r), where it is dropped and counted (x),
which the device may say as well (u), or where it is a repeat or work that is over (.)."""


def _after(state: str) -> DeviceSession:
    session = DeviceSession()
    for event in STATES[state][1]:
        session.handle(event)
    assert session.state is STATES[state][0]
    assert session.num_stale == 0
    return session


def _inside(session: DeviceSession) -> bytes:
    """All that a session is, but for what it counts."""
    counted, session.num_stale = session.num_stale, 0
    inside = pickle.dumps(session)
    session.num_stale = counted
    return inside


def _meaning(state: str, event: DeviceEvent) -> str:
    """Say in one sign what an event means in a state."""
    session = _after(state)
    before = _inside(session)
    commands = session.handle(event)
    if (inside := _inside(session)) == before:
        dropped = "u" if commands else "x"
        return dropped if session.num_stale else "r" if commands else "."
    assert session.num_stale == 0
    same = [other for other in STATES if _inside(_after(other)) == inside]
    return same[0] if same else LETTERS[session.state]


@pytest.mark.parametrize("state", STATES)
def test_every_event_in_every_state_is_a_transition_or_changes_nothing(state: str) -> None:
    heads, *rows = MEANINGS.strip("\n").splitlines()
    place = heads.index(state)
    expected = {row[: heads.index("a")].strip(): row[place] for row in rows}
    assert {name: _meaning(state, event) for name, event in EVENTS.items()} == expected


@pytest.mark.parametrize("state", STATES)
def test_an_event_of_the_other_half_is_refused_with_nothing_changed(state: str) -> None:
    session = _after(state)
    before = _inside(session)
    with pytest.raises(UnexpectedEventError, match=STATES[state][0].name):
        session.handle(DeviceLost("a", "is gone"))  # type: ignore[arg-type]
    assert (_inside(session), session.num_stale) == (before, 0)
