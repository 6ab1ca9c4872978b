"""Who gives a device its job and ends it, and what it says of a turn that it is not in."""

import hashlib

import pytest

from runtime.protocol.device import SessionState
from runtime.protocol.device_turn import QUIET_S
from runtime.protocol.events import (
    CommandArrived,
    ForwardDone,
    Prepare,
    Prepared,
    SendReply,
)
from runtime.wire.chunks.questions import Inquire, NotInTurn, SendAgain
from runtime.wire.commands import Stop
from tests.turn import ASSIGNMENT, CLUSTER, JOIN, READY, ROUND, RUN, step_at
from tests.unit.runtime.protocol.device_events import (
    ANOTHERS,
    ASSIGNED,
    GRADIENTS,
    JOINING,
    MODEL,
    TO_GRADIENT,
    TO_JOINED,
    TO_WEIGHTS,
    TURN,
    W,
    after,
    opened,
)


@pytest.mark.parametrize(
    "other", [{"run": RUN + 1}, {"round": ROUND - 1}, {"cluster": CLUSTER - 1}], ids=str
)
@pytest.mark.parametrize("num_before", range(3, len(TO_WEIGHTS) + 1))
def test_who_is_asked_about_a_turn_that_it_is_not_in_says_so_and_goes_on(
    num_before: int, other: dict[str, int]
) -> None:
    session = after(TO_WEIGHTS[:num_before])
    state = dict(vars(session))
    turn = TURN | other
    about = turn | {"epoch": 0}
    asked = (
        JOIN.model_copy(update=other),
        Inquire.model_validate(about | {"request": "model", "number": 1}),
        SendAgain.model_validate(about | {"answer": "smashed", "chunks": ()}),
    )
    for message in asked:
        said = session.handle(CommandArrived(message))
        assert said == [SendReply(NotInTurn.model_validate(turn))]
    assert dict(vars(session)) == state | {"num_stale": len(asked)}


def test_who_is_asked_for_more_than_its_turn_has_come_to_says_that_it_has_lost_that() -> None:
    inquiries = [Inquire(**TURN, epoch=epoch, request="gradient", number=1) for epoch in range(2)]
    lost = SendReply(NotInTurn(**TURN))
    for session, epochs in ((after(TO_JOINED), (0, 1)), (after(TO_GRADIENT), (1,))):
        for epoch in epochs:
            assert session.handle(CommandArrived(inquiries[epoch])) == [lost]


def test_a_late_duplicate_join_does_not_open_its_turn_again() -> None:
    following = JOIN.model_copy(update={"round": ROUND + 1})
    session = after([*TO_WEIGHTS, CommandArrived(following), opened(following)])
    state = dict(vars(session))
    assert session.handle(JOINING) == [SendReply(NotInTurn(**TURN))]
    assert session.handle(MODEL) == []
    assert dict(vars(session)) == state | {"num_stale": 2}


def test_stop_ends_the_run_and_the_same_assignment_begins_anew() -> None:
    session = after(TO_GRADIENT)
    assert session.handle(CommandArrived(Stop(run=RUN))) == []
    assert session.state is SessionState.UNASSIGNED
    assert session.handle(GRADIENTS[0]) == []
    assert session.handle(JOINING) == [SendReply(NotInTurn(**TURN))]
    assert session.num_stale == 2
    assert session.handle(ASSIGNED) == [Prepare(ASSIGNMENT)]
    assert session.handle(Prepared(READY)) == [SendReply(READY)]


def test_a_stop_without_the_secret_of_the_run_ends_nothing() -> None:
    secret = str(RUN)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    own = ASSIGNMENT.model_copy(update={"stop_digest": digest})
    session = after((CommandArrived(own), *TO_GRADIENT[1:]))
    state = dict(vars(session))
    for forged in (Stop(run=RUN), Stop(run=RUN, secret=digest)):
        assert session.handle(CommandArrived(forged)) == []
    assert dict(vars(session)) == state | {"num_stale": 2}
    session.handle(CommandArrived(Stop(run=RUN, secret=secret)))
    assert session.state is SessionState.UNASSIGNED


def test_an_assignment_of_another_run_replaces_the_present_one_once_that_is_quiet() -> None:
    other = ANOTHERS
    session = after(TO_GRADIENT)
    assert session.handle(CommandArrived(other, quiet_s=QUIET_S)) == [Prepare(other)]
    assert session.handle(Prepared(READY)) == []
    assert session.handle(ForwardDone(step_at(0), (W,))) == []
    ready = READY.model_copy(update={"run": RUN + 1})
    assert session.handle(Prepared(ready)) == [SendReply(ready)]
    assert session.join is None
