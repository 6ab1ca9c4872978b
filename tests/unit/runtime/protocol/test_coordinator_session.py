"""The coordinator's half of the conversation: what each event means in each state."""

import itertools
import pickle
from math import inf

import pytest

from runtime.errors import UnexpectedEventError
from runtime.protocol.coordinator import LOST, CoordinatorSession
from runtime.protocol.coordinator_events import (
    Abandoned,
    Arrived,
    AskedFor,
    BusBack,
    BusLost,
    CoordinatorEvent,
    CountDropped,
    Deliver,
    Excluded,
    FrameRequest,
    GiveUp,
    NoteFree,
    NoteLateAnswer,
    NoteLost,
    NoteReady,
    NoteRefusal,
    PartArrived,
    ReplyArrived,
    Returned,
    Seen,
    SendCommand,
    SendParts,
    Went,
)
from runtime.protocol.events import FrameArrived, FrameSent
from runtime.protocol.pending import PeerState
from runtime.protocol.timers import GRACE_S, RETURN_S, Allowance
from runtime.wire.chunks.questions import Holding, Inquire, NotInTurn, SendAgain
from runtime.wire.commands import GraphsOffer, NeedGraphs, Preparing, Refused
from runtime.wire.frames import Frame, FrameKind
from tests.pair import SPEC, tensor_of
from tests.turn import ASSIGNMENT, CLUSTER, JOIN, JOINED, READY, ROUND, RUN, step_at

ALLOWANCE = Allowance(2.0, 15.0, is_learned=True)
STEP = step_at(0)
REQUEST = FrameRequest(FrameKind.MODEL, STEP, FrameKind.SMASHED, STEP, (SPEC,))
ANSWER = FrameArrived("", Frame(FrameKind.SMASHED, STEP, tensor_of(STEP, 3)))
SENT = FrameSent(FrameKind.MODEL, STEP)
PLACE = {"run": RUN, "round": ROUND, "cluster": CLUSTER, "epoch": 0}
OFFER = GraphsOffer(digest="ab" * 32, num_bytes=(10, 10, 10))
GRAPH_JOIN = JOIN.model_copy(update={"graphs": OFFER})
LACKING = NeedGraphs(run=RUN, round=ROUND, cluster=CLUSTER, digest=OFFER.digest)
NOT_IN_TURN = NotInTurn(run=RUN, round=ROUND, cluster=CLUSTER)
TO_JOINED: tuple[CoordinatorEvent, ...] = (
    Arrived("one"),
    AskedFor(JOIN, ALLOWANCE),
    ReplyArrived(JOINED),
)
TO_ANSWERING = (*TO_JOINED, AskedFor(REQUEST, ALLOWANCE), SENT)
STATES: dict[PeerState, tuple[CoordinatorEvent, ...]] = {
    PeerState.IDLE: TO_JOINED,
    PeerState.ASSIGNING: (Arrived("one"), AskedFor(ASSIGNMENT, ALLOWANCE)),
    PeerState.JOINING: (*TO_JOINED, AskedFor(JOIN, ALLOWANCE)),
    PeerState.ANSWERING: TO_ANSWERING,
    PeerState.LATE: TO_ANSWERING,
}


def _holding(state: str, number: int = 1, missing: tuple[tuple[int, int], ...] = ()) -> Holding:
    about = {"request": "model", "number": number, "state": state, "missing": missing}
    return Holding.model_validate(PLACE | about)


EVENTS: tuple[CoordinatorEvent, ...] = (
    Arrived("two"),
    Went(),
    Returned(),
    Seen(),
    Excluded("sent garbage"),
    BusLost(),
    BusBack(),
    AskedFor(ASSIGNMENT, ALLOWANCE),
    AskedFor(JOIN, ALLOWANCE),
    AskedFor(REQUEST, ALLOWANCE),
    Abandoned(REQUEST),
    ReplyArrived(READY),
    ReplyArrived(Preparing(run=RUN)),
    ReplyArrived(JOINED),
    ReplyArrived(LACKING),
    ReplyArrived(Refused(run=RUN, reason="no room")),
    ReplyArrived(NOT_IN_TURN),
    ReplyArrived(_holding("receiving")),
    PartArrived(FrameKind.SMASHED, STEP, is_last=False),
    PartArrived(FrameKind.WEIGHTS, STEP, is_last=True),
    ANSWER,
    SENT,
)


def _after(events: tuple[CoordinatorEvent, ...]) -> CoordinatorSession:
    session = CoordinatorSession(run=RUN, patience_s=60.0)
    for event in events:
        session.handle(event, 100.0)
    return session


def _in(state: PeerState) -> CoordinatorSession:
    session = _after(STATES[state])
    if state is PeerState.LATE:
        session.handle_timeout(117.0)
    assert session.state is state
    return session


def _kept(session: CoordinatorSession) -> bytes:
    return pickle.dumps([kept for name, kept in vars(session).items() if name != "frames"])


@pytest.mark.parametrize(("state", "event"), list(itertools.product(STATES, EVENTS)))
def test_every_event_in_every_state_is_taken_or_refused_with_nothing_changed(
    state: PeerState, event: CoordinatorEvent
) -> None:
    session = _in(state)
    before = _kept(session)
    is_busy = state in {PeerState.ASSIGNING, PeerState.JOINING, PeerState.ANSWERING}
    is_job = isinstance(event, AskedFor) and event.what is ASSIGNMENT
    is_given_up = state is PeerState.ASSIGNING and isinstance(event, AskedFor) and not is_job
    is_allowed = state is PeerState.ANSWERING if event is ANSWER else not is_busy or is_given_up
    if isinstance(event, AskedFor | FrameArrived) and not is_allowed:
        with pytest.raises(UnexpectedEventError, match=state.name):
            session.handle(event, 118.0)
        assert _kept(session) == before
    else:
        session.handle(event, 118.0)


def test_a_control_message_is_repeated_with_growing_pauses_until_the_device_is_late() -> None:
    session = _after(TO_JOINED[:1])
    [first] = session.handle(AskedFor(JOIN, ALLOWANCE), 100.0)
    said = []
    while session.state is PeerState.JOINING:
        said += session.handle_timeout(session.next_timeout())
    assert said[:-1] == [first] * 3 == [SendCommand(JOIN)] * 3
    assert said[-1] == GiveUp(JOIN, "gave no answer to join within 17 s", 17.0)


def test_no_question_goes_before_the_frame_is_with_the_broker_and_none_ends_in_the_frame() -> None:
    session = _after(TO_ANSWERING[:-1])
    assert session.handle_timeout(session.next_timeout()) == []
    session.handle(SENT, 105.0)
    [question] = session.handle_timeout(session.next_timeout())
    asked = Inquire.model_validate(PLACE | {"request": "model", "number": 1})
    assert question == SendCommand(asked)
    assert session.handle(ReplyArrived(_holding("working")), 110.0) == []
    assert session.handle(ReplyArrived(_holding("sending")), 110.0) == []


def test_what_a_device_lacks_goes_again_once_however_often_it_says_so() -> None:
    session = _after(TO_ANSWERING)
    for _ in range(2):
        session.handle_timeout(session.next_timeout())
    lacking = [ReplyArrived(_holding("receiving", n, ((1, 2),))) for n in (0, 1, 2)]
    said = [session.handle(each, 112.0) for each in lacking]
    assert said == [[], [SendParts(FrameKind.MODEL, STEP, ((1, 2),))], []]


def test_what_we_lack_of_an_answer_is_asked_for_only_if_all_of_it_had_gone() -> None:
    session = _after(TO_ANSWERING)
    session.handle_timeout(session.next_timeout())
    [again] = session.handle(ReplyArrived(_holding("sent")), 112.0)
    lost = SendAgain.model_validate(PLACE | {"answer": "smashed", "chunks": ()})
    assert again == SendCommand(lost)
    assert session.handle(ReplyArrived(_holding("sent")), 112.0) == []


def test_graphs_are_sent_once_and_asked_about_afterwards() -> None:
    session = _after((Arrived("one"), AskedFor(GRAPH_JOIN, ALLOWANCE)))
    graphs = SendParts(FrameKind.GRAPHS, STEP, ())
    assert session.handle(ReplyArrived(LACKING), 101.0) == [graphs]
    assert session.handle(ReplyArrived(LACKING), 102.0) == []
    session.handle(FrameSent(FrameKind.GRAPHS, STEP), 103.0)
    [question] = session.handle_timeout(session.next_timeout())
    assert isinstance(question, SendCommand)
    assert isinstance(question.message, Inquire)
    assert question.message.request == "graphs"


def test_an_answer_counts_that_is_handled_before_the_deadline_is_though_it_came_after() -> None:
    session = _after(TO_ANSWERING)
    [answer] = session.handle(ANSWER, 200.0)
    assert answer == Deliver(REQUEST, ANSWER.frame, 100.0)


def test_what_an_answer_took_across_a_broken_connection_is_not_told() -> None:
    session = _after(TO_ANSWERING)
    session.handle(BusLost(), 101.0)
    assert session.next_timeout() == inf
    [question] = session.handle(BusBack(), 102.0)
    assert isinstance(question, SendCommand)
    [answer] = session.handle(ANSWER, 103.0)
    assert isinstance(answer, Deliver)
    assert answer.took_s is None


def test_a_device_owes_until_the_last_part_of_just_that_answer_has_come() -> None:
    session = _in(PeerState.LATE)
    assert session.handle(AskedFor(JOIN, ALLOWANCE), 118.0) == [
        GiveUp(JOIN, "is not there any more")
    ]
    other = PartArrived(FrameKind.WEIGHTS, STEP, is_last=True)
    assert session.handle(other, 118.0) == [CountDropped()]
    assert session.handle(PartArrived(FrameKind.SMASHED, STEP, is_last=False), 119.0)
    assert session.why_busy == f"was late, and is at its answer of round {ROUND} still"
    last = PartArrived(FrameKind.SMASHED, STEP, is_last=True)
    assert session.handle(last, 120.0) == [CountDropped(), NoteLateAnswer(20.0), NoteFree()]
    assert not session.why_busy


def test_a_late_device_that_never_answers_owes_for_the_patience_and_no_longer() -> None:
    session = _in(PeerState.LATE)
    assert session.next_timeout() == 117.0 + 60.0
    assert session.handle_timeout(177.0) == [NoteFree()]


@pytest.mark.parametrize("state", [PeerState.JOINING, PeerState.ANSWERING, PeerState.LATE])
def test_who_has_lost_the_turn_is_waited_for_no_longer_and_begins_anew(state: PeerState) -> None:
    session = _in(state)
    told = {
        PeerState.JOINING: GiveUp(JOIN, LOST),
        PeerState.ANSWERING: GiveUp(REQUEST, LOST),
        PeerState.LATE: NoteFree(),
    }[state]
    other = NOT_IN_TURN.model_copy(update={"cluster": CLUSTER + 1})
    assert session.handle(ReplyArrived(other), 118.0) == [CountDropped()]
    assert session.handle(ReplyArrived(NOT_IN_TURN), 118.0) == [told, NoteLost()]
    assert session.state is PeerState.IDLE
    assert session.handle(ReplyArrived(NOT_IN_TURN), 118.0) == [CountDropped()]
    gone = GiveUp(REQUEST, "was restarted")
    assert session.handle(AskedFor(REQUEST, ALLOWANCE), 119.0) == [gone]


def test_who_is_late_is_asked_once_more_for_it_may_have_lost_the_turn() -> None:
    session = _after(TO_ANSWERING)
    late, question = session.handle_timeout(117.0)
    assert isinstance(late, GiveUp)
    assert isinstance(question, SendCommand)
    assert isinstance(question.message, Inquire)


def test_a_broken_connection_has_a_moment_to_come_back() -> None:
    session = _after((*TO_ANSWERING, Went()))
    assert session.handle_timeout(100.0 + GRACE_S / 2) == []
    assert session.handle_timeout(100.0 + GRACE_S) == [GiveUp(REQUEST, "went offline")]
    session = _after((*TO_ANSWERING, Went(), Returned()))
    assert session.next_timeout() > 100.0 + GRACE_S
    session = _after((*TO_ANSWERING, Went(), BusLost()))
    assert session.handle_timeout(1000.0) == []
    session.handle(BusBack(), 1000.0)
    assert session.next_timeout() == 1000.0 + 2.0 + 3.0
    session.handle_timeout(1005.0)
    assert session.handle_timeout(1000.0 + RETURN_S) == [GiveUp(REQUEST, "went offline")]


def test_a_device_that_was_restarted_after_its_join_is_not_asked_for_a_frame() -> None:
    session = _after((*TO_JOINED, Arrived("two")))
    assert session.handle(AskedFor(REQUEST, ALLOWANCE), 101.0) == [GiveUp(REQUEST, "was restarted")]


def test_who_is_asked_for_a_turn_while_it_gets_the_job_again_is_given_up() -> None:
    session = _after((*TO_JOINED, Arrived("two"), AskedFor(ASSIGNMENT, ALLOWANCE)))
    assert session.handle(AskedFor(REQUEST, ALLOWANCE), 101.0) == [GiveUp(REQUEST, "was restarted")]
    gone = GiveUp(JOIN, "is not there any more")
    assert session.handle(AskedFor(JOIN, ALLOWANCE), 101.0) == [gone]
    assert session.state is PeerState.ASSIGNING


def test_what_comes_unasked_is_told_and_a_refusal_ends_all_that_is_asked() -> None:
    session = _after(TO_ANSWERING)
    refused = ReplyArrived(Refused(run=RUN, reason="no room"))
    assert session.handle(refused, 101.0) == [NoteRefusal("no room"), GiveUp(REQUEST, "no room")]
    assert session.handle(ReplyArrived(READY), 102.0) == [NoteReady(READY)]
    foreign = ReplyArrived(Refused(run=RUN + 1, reason="no room"))
    assert session.handle(foreign, 103.0) == [CountDropped()]
