"""How a device gets its graphs: the sentences, and the bytes."""

from collections.abc import Sequence

import numpy as np
import pytest
from pydantic import ValidationError

from runtime.protocol.device import DeviceSession, SessionState
from runtime.protocol.events import (
    CommandArrived,
    DeviceEvent,
    FrameArrived,
    GraphsMissing,
    OpenPass,
    PassOpened,
    Prepared,
    SendReply,
    TakeGraphs,
)
from runtime.wire.chunks.questions import Inquire
from runtime.wire.commands import (
    MAX_GRAPHS_BYTES,
    FrozenOffer,
    GraphsOffer,
    Join,
    NeedGraphs,
)
from runtime.wire.frames import Frame, FrameKind, StepId, Tensor, specs_of
from tests.turn import ASSIGNMENT, CLUSTER, JOIN, JOINED, READY, ROUND, RUN, step_at

OFFER = GraphsOffer(digest="ab" * 32, num_bytes=(3, 2, 2))
OFFERED = JOIN.model_copy(update={"graphs": OFFER})
NEEDED = NeedGraphs(run=RUN, round=ROUND, cluster=CLUSTER, digest=OFFER.digest)
BYTES: tuple[Tensor, ...] = tuple(np.zeros(size, np.uint8) for size in OFFER.num_bytes)
GRAPHS = FrameArrived("", Frame(FrameKind.GRAPHS, step_at(0), BYTES))
TO_MISSING: Sequence[DeviceEvent] = (
    CommandArrived(ASSIGNMENT),
    Prepared(READY),
    CommandArrived(OFFERED),
    GraphsMissing(OFFERED, OFFER),
)


def _after(events: Sequence[DeviceEvent]) -> DeviceSession:
    session = DeviceSession()
    for event in events:
        session.handle(event)
    return session


def _opened(join: Join) -> PassOpened:
    return PassOpened(join, (), ())


def test_a_device_without_the_graphs_asks_takes_them_and_joins() -> None:
    session = _after(TO_MISSING[:2])
    said = [session.handle(event) for event in (*TO_MISSING[2:], GRAPHS, _opened(OFFERED))]
    assert said == [
        [OpenPass(OFFERED)],
        [SendReply(NEEDED)],
        [TakeGraphs(OFFERED, OFFER, BYTES)],
        [SendReply(JOINED)],
    ]
    assert session.num_stale == 0


def test_a_measurement_is_answered_when_it_is_done_and_takes_no_model() -> None:
    measuring = OFFERED.model_copy(update={"purpose": "measure"})
    session = _after([*TO_MISSING[:2], CommandArrived(measuring)])
    assert session.handle(_opened(measuring)) == [SendReply(JOINED)]
    model = FrameArrived("", Frame(FrameKind.MODEL, step_at(0), ()))
    assert session.asked_for(FrameKind.MODEL, step_at(0)) is None
    assert session.handle(model) == []
    assert session.handle(CommandArrived(OFFERED)) == [OpenPass(OFFERED)]


def test_graphs_that_were_not_those_offered_are_asked_for_again() -> None:
    session = _after([*TO_MISSING, GRAPHS])
    assert session.handle(GraphsMissing(OFFERED, OFFER)) == [SendReply(NEEDED)]
    assert session.handle(GRAPHS) == [TakeGraphs(OFFERED, OFFER, BYTES)]


def test_a_device_asks_for_graphs_and_frozen_parameters_one_after_the_other() -> None:
    frozen = FrozenOffer(digest="cd" * 32, num_bytes=5)
    join = OFFERED.model_copy(update={"frozen": frozen})
    values = FrameArrived("", Frame(FrameKind.GRAPHS, step_at(1), (np.zeros(5, np.uint8),)))
    session = _after([*TO_MISSING[:2], CommandArrived(join), GraphsMissing(join, OFFER), GRAPHS])
    asked = NEEDED.model_copy(update={"digest": frozen.digest})
    assert session.handle(GraphsMissing(join, frozen)) == [SendReply(asked)]
    assert session.asked_for(FrameKind.GRAPHS, step_at(0)) is None
    inquiry = Inquire(
        run=RUN, round=ROUND, cluster=CLUSTER, epoch=0, request="graphs", number=1
    )  # Of the graphs: the answer to these was lost.
    assert session.handle(CommandArrived(inquiry)) == [SendReply(asked)]
    assert session.handle(values) == [TakeGraphs(join, frozen, values.frame.tensors)]
    assert session.handle(_opened(join)) == [SendReply(JOINED)]


def test_a_repeat_is_answered_again_while_waiting_and_is_silence_while_at_work() -> None:
    session = _after(TO_MISSING)
    joining = CommandArrived(OFFERED)
    assert session.handle(joining) == [SendReply(NEEDED)]
    session.handle(GRAPHS)
    assert session.handle(joining) == []
    session.handle(_opened(OFFERED))
    assert session.handle(joining) == [SendReply(JOINED)]
    assert session.num_stale == 0


@pytest.mark.parametrize("num_before", [0, 2, 3, 5, 6])
def test_graphs_that_nobody_waits_for_are_counted_and_dropped(num_before: int) -> None:
    session = _after([*TO_MISSING, GRAPHS, _opened(OFFERED)][:num_before])
    phase = session.state
    assert session.asked_for(FrameKind.GRAPHS, step_at(0)) is None
    assert session.handle(GRAPHS) == []
    assert (session.state, session.num_stale) == (phase, 1)


def test_shapes_are_those_of_the_offer_and_of_this_turn_only() -> None:
    session = _after(TO_MISSING)
    assert session.asked_for(FrameKind.GRAPHS, step_at(0)) == specs_of(BYTES)
    assert session.asked_for(FrameKind.GRAPHS, StepId(RUN, ROUND - 1, CLUSTER, 0)) is None
    assert session.asked_for(FrameKind.MODEL, step_at(0)) is None


def test_the_next_turn_interrupts_waiting_for_graphs() -> None:
    following = OFFERED.model_copy(update={"round": ROUND + 1})
    session = _after(TO_MISSING)
    assert session.handle(CommandArrived(following)) == [OpenPass(following)]
    assert session.handle(GraphsMissing(OFFERED, OFFER)) == []
    assert session.state is SessionState.OPENING


@pytest.mark.parametrize(
    "sizes", [(1, 1), (1, 1, 0), (1, 1, 1, 1, 1), (1, 1, MAX_GRAPHS_BYTES), ()]
)
def test_an_offer_of_impossible_sizes_is_no_message(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        GraphsOffer(digest=OFFER.digest, num_bytes=sizes)


# The bytes
