"""The device's half of the conversation, sentence by sentence."""

from collections.abc import Sequence

import pytest

from runtime.errors import UnexpectedEventError
from runtime.protocol.device import DeviceSession, SessionState
from runtime.protocol.events import (
    CollectWeights,
    CommandArrived,
    DeviceCommand,
    DeviceEvent,
    DeviceLost,
    ForwardDone,
    FrameArrived,
    FrameSent,
    LoadModel,
    OpenPass,
    Predict,
    Prepare,
    Prepared,
    RunBackward,
    RunForward,
    SendFrame,
    SendReply,
    TrainLocally,
    WeightsCollected,
)
from runtime.wire.chunks.questions import Holding, Inquire, SendAgain
from runtime.wire.commands import Joined, Preparing, Stop
from runtime.wire.frames import Frame, FrameKind, StepId
from tests.turn import ASSIGNMENT, CLUSTER, JOIN, JOINED, READY, ROUND, RUN, step_at
from tests.unit.runtime.protocol.device_events import (
    ANOTHERS,
    ASSIGNED,
    EVALUATION,
    GRADIENTS,
    JOINING,
    LOCALLY,
    MODEL,
    SPEC,
    TO_GRADIENT,
    TO_JOINED,
    TO_WEIGHTS,
    W,
    after,
    opened,
)


def test_a_turn_of_two_epochs_is_these_sentences() -> None:
    session = DeviceSession()
    said: list[list[DeviceCommand]] = [session.handle(event) for event in TO_WEIGHTS]
    first, second = step_at(0), step_at(1)
    smashed = [Frame(FrameKind.SMASHED, step, (W,)) for step in (first, second)]
    assert said == [
        [Prepare(ASSIGNMENT)],
        [SendReply(READY)],
        [OpenPass(JOIN)],
        [SendReply(JOINED)],
        [LoadModel((W,)), RunForward(first)],
        [SendFrame(smashed[0])],
        [RunBackward(first, GRADIENTS[0].frame.tensors, is_last=True), RunForward(second)],
        [SendFrame(smashed[1])],
        [RunBackward(second, GRADIENTS[1].frame.tensors, is_last=True), CollectWeights(second)],
        [SendFrame(Frame(FrameKind.WEIGHTS, second, (W,)))],
    ]
    assert session.state is SessionState.FINISHED
    assert session.num_stale == 0


def test_an_evaluation_predicts_once_and_ends() -> None:
    session = after([ASSIGNED, Prepared(READY)])
    step = StepId(RUN, ROUND, 0xFFFF, 0)
    assert session.handle(CommandArrived(EVALUATION)) == [OpenPass(EVALUATION)]
    session.handle(opened(EVALUATION))
    model = FrameArrived("", Frame(FrameKind.MODEL, step, (W,)))
    assert session.handle(model) == [LoadModel((W,)), Predict(step)]
    outputs = Frame(FrameKind.SMASHED, step, (W,))
    assert session.handle(ForwardDone(step, (W,))) == [SendFrame(outputs)]
    assert session.state is SessionState.FINISHED


def test_local_training_answers_a_model_with_the_weights_of_the_last_epoch() -> None:
    session = after([ASSIGNED, Prepared(READY), CommandArrived(LOCALLY), opened(LOCALLY)])
    assert session.handle(MODEL) == [LoadModel((W,)), TrainLocally(step_at(1))]
    weights = Frame(FrameKind.WEIGHTS, step_at(1), (W,))
    assert session.handle(WeightsCollected(step_at(1), (W,))) == [SendFrame(weights)]


@pytest.mark.parametrize(
    ("before", "request_"),
    [
        (TO_WEIGHTS[:2], ASSIGNED),
        (TO_WEIGHTS[:4], JOINING),
        (TO_WEIGHTS, JOINING),
        (TO_WEIGHTS, ASSIGNED),
    ],
)
def test_a_repeated_request_gets_the_same_answer(
    before: Sequence[DeviceEvent], request_: DeviceEvent
) -> None:
    session = after(before)
    state = dict(vars(session))
    [answer] = session.handle(request_)
    [again] = session.handle(request_)
    assert isinstance(answer, SendReply)
    assert answer == again
    assert dict(vars(session)) == state


SENT = FrameSent(FrameKind.SMASHED, step_at(0))
PLACE = {"run": RUN, "round": ROUND, "cluster": CLUSTER, "epoch": 0}


@pytest.mark.parametrize(
    ("before", "about", "state"),
    [
        (TO_JOINED, "model", "receiving"),
        (TO_WEIGHTS[:5], "model", "working"),
        (TO_GRADIENT, "model", "sending"),
        ((*TO_GRADIENT, SENT), "model", "sent"),
        ((*TO_GRADIENT, SENT), "gradient", "receiving"),
        (TO_WEIGHTS, "model", None),
        (TO_WEIGHTS[:2], "gradient", None),
    ],
)
def test_a_device_says_how_far_it_is_with_a_frame(
    before: Sequence[DeviceEvent], about: str, state: str | None
) -> None:
    session = after(before)
    question = Inquire.model_validate(PLACE | {"request": about, "number": 4})
    said = session.handle(CommandArrived(question))
    told = [reply.message for reply in said if isinstance(reply, SendReply)]
    assert [(each.state, each.number) for each in told if isinstance(each, Holding)] == (
        [(state, 4)] if state else []
    )
    assert session.num_stale == (state is None)


@pytest.mark.parametrize("frame", [MODEL, GRADIENTS[0]])
def test_a_frame_that_comes_twice_makes_nothing_go_twice(frame: FrameArrived) -> None:
    session = after(TO_WEIGHTS[: 6 if frame is MODEL else 8])
    assert session.handle(frame) == []


def test_what_was_lost_of_an_answer_goes_again_once_all_of_it_had_gone() -> None:
    session = after(TO_GRADIENT)
    lost = SendAgain.model_validate(PLACE | {"answer": "smashed", "chunks": ((1, 2),)})
    assert session.handle(CommandArrived(lost)) == []
    session.handle(SENT)
    again = SendFrame(Frame(FrameKind.SMASHED, step_at(0), (W,)), ((1, 2),))
    assert session.handle(CommandArrived(lost)) == [again]
    assert session.handle(CommandArrived(lost)) == []


def test_a_repeated_assignment_hears_that_the_device_is_at_it() -> None:
    session = after(TO_WEIGHTS[:1])
    state = dict(vars(session))
    assert session.handle(ASSIGNED) == [SendReply(Preparing(run=RUN))]
    assert dict(vars(session)) == state


@pytest.mark.parametrize(
    ("before", "request_"),
    [
        (TO_WEIGHTS[:3], JOINING),
        (TO_WEIGHTS[:5], MODEL),
        (TO_WEIGHTS[:7], GRADIENTS[0]),
        (TO_WEIGHTS[:9], GRADIENTS[1]),
    ],
)
def test_a_repeat_while_the_device_is_at_work_is_silence(
    before: Sequence[DeviceEvent], request_: DeviceEvent
) -> None:
    session = after(before)
    state = dict(vars(session))
    assert session.handle(request_) == []
    assert dict(vars(session)) == state


def _frame(kind: FrameKind, *, run: int = RUN, round_: int = ROUND, epoch: int = 0) -> FrameArrived:
    return FrameArrived("", Frame(kind, StepId(run, round_, CLUSTER, epoch), (W,)))


@pytest.mark.parametrize(
    "stale",
    [
        CommandArrived(Stop(run=RUN + 1)),
        CommandArrived(ANOTHERS, quiet_s=4.9),
        _frame(FrameKind.MODEL, run=RUN + 1),
        _frame(FrameKind.MODEL, round_=ROUND - 1),
        _frame(FrameKind.MODEL, epoch=1),
        _frame(FrameKind.GRADIENT, round_=ROUND - 1),
        _frame(FrameKind.GRADIENT, round_=ROUND + 1),
        _frame(FrameKind.GRADIENT, epoch=2),
        _frame(FrameKind.SMASHED),
    ],
)
@pytest.mark.parametrize("num_before", range(3, len(TO_WEIGHTS) + 1))
def test_what_is_of_another_run_round_or_step_is_counted_and_dropped(
    num_before: int, stale: DeviceEvent
) -> None:
    session = after(TO_WEIGHTS[:num_before])
    state = dict(vars(session))
    assert session.handle(stale) == []
    assert dict(vars(session)) == state | {"num_stale": 1}


def test_shapes_are_asked_for_only_while_their_frame_may_come() -> None:
    asked = {(FrameKind.MODEL, 0): [4, 5, 6], (FrameKind.GRADIENT, 0): [6, 7, 8]}
    asked[FrameKind.GRADIENT, 1] = [8, 9, 10]
    for (kind, epoch), whiles in asked.items():
        for num_events in range(len(TO_WEIGHTS) + 1):
            session = after(TO_WEIGHTS[:num_events])
            expected = (SPEC,) if num_events in whiles else None
            assert session.asked_for(kind, step_at(epoch)) == expected, (kind, epoch, num_events)


def test_a_join_interrupts_the_turn_before_and_its_late_work_is_forgotten() -> None:
    following = JOIN.model_copy(update={"round": ROUND + 1})
    session = after([*TO_JOINED, MODEL])
    assert session.handle(CommandArrived(following)) == [OpenPass(following)]
    state = dict(vars(session))
    assert session.handle(ForwardDone(step_at(0), (W,))) == []
    assert session.handle(opened(JOIN)) == []
    assert dict(vars(session)) == state
    joined = Joined(run=RUN, round=ROUND + 1, cluster=CLUSTER)
    assert session.handle(opened(following)) == [SendReply(joined)]


@pytest.mark.parametrize("num_before", range(len(TO_WEIGHTS) + 1))
def test_what_is_not_allowed_raises_and_changes_nothing(num_before: int) -> None:
    session = after(TO_WEIGHTS[:num_before])
    state = dict(vars(session))
    with pytest.raises(UnexpectedEventError, match=session.state.name):
        session.handle(DeviceLost("d0", "of the other half"))  # type: ignore[arg-type]
    assert dict(vars(session)) == state
