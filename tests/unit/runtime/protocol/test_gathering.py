"""Gathering what the devices of a cluster answer."""

import itertools

import numpy as np
import pytest

from runtime.errors import UnexpectedEventError
from runtime.protocol.events import DeviceLost, FrameArrived, Gathered
from runtime.protocol.gathering import Gathering
from runtime.wire.frames import Frame, FrameKind, StepId, Tensor, spec_of
from tests.turn import step_at

W: Tensor = np.arange(4, dtype=np.float32)
DEVICES = ("d0", "d1", "d10", "d2")


def _gathering() -> Gathering:
    return Gathering(FrameKind.SMASHED, step_at(0), dict.fromkeys(DEVICES, (spec_of(W),)))


def _answer(device: str, value: float = 0.0) -> FrameArrived:
    tensors = (np.full(4, value, dtype=np.float32),)
    return FrameArrived(device, Frame(FrameKind.SMASHED, step_at(0), tensors))


@pytest.mark.parametrize("order", list(itertools.permutations(DEVICES)))
def test_answers_come_out_in_device_id_order_in_whatever_order_they_came(
    order: tuple[str, ...],
) -> None:
    gathering = _gathering()
    said = [gathering.handle(_answer(device, order.index(device))) for device in order]
    assert said[:-1] == [[]] * 3
    [gathered] = said[-1]
    assert isinstance(gathered, Gathered)
    assert list(gathered.answers) == sorted(DEVICES)
    assert {d: t[0][0] for d, t in gathered.answers.items()} == {
        device: place for place, device in enumerate(order)
    }


def test_the_first_answer_counts_and_a_repeat_is_dropped() -> None:
    gathering = _gathering()
    for device in DEVICES[:-1]:
        gathering.handle(_answer(device, 1.0))
    assert gathering.handle(_answer("d0", 2.0)) == []
    assert gathering.num_dropped == 1
    [gathered] = gathering.handle(_answer(DEVICES[-1], 1.0))
    assert isinstance(gathered, Gathered)
    assert gathered.answers["d0"][0].tolist() == [1.0] * 4


def test_the_others_go_on_without_a_lost_device_and_its_late_answer_is_dropped() -> None:
    gathering = _gathering()
    assert gathering.handle(DeviceLost("d1", "went offline")) == []
    assert gathering.handle(DeviceLost("d1", "went offline again")) == []
    assert gathering.handle(_answer("d1")) == []
    assert gathering.num_dropped == 1
    said = [gathering.handle(_answer(device)) for device in ("d0", "d2", "d10")]
    [gathered] = said[-1]
    assert isinstance(gathered, Gathered)
    assert list(gathered.answers) == ["d0", "d10", "d2"]
    assert gathered.lost == {"d1": "went offline"}


def test_a_device_is_not_lost_once_it_has_answered() -> None:
    gathering = _gathering()
    gathering.handle(_answer("d0"))
    assert gathering.handle(DeviceLost("d0", "went offline")) == []
    for device in ("d1", "d2"):
        gathering.handle(_answer(device))
    [gathered] = gathering.handle(_answer("d10"))
    assert isinstance(gathered, Gathered)
    assert not gathered.lost


def test_losing_the_last_that_is_missing_closes_the_gathering_also_with_no_answer_at_all() -> None:
    gathering = _gathering()
    said = [gathering.handle(DeviceLost(device, "gone")) for device in DEVICES]
    assert said == [[], [], [], [Gathered({}, dict.fromkeys(DEVICES, "gone"))]]


def test_each_device_is_asked_until_it_has_answered_or_is_lost() -> None:
    gathering = _gathering()
    gathering.handle(_answer("d0"))
    gathering.handle(DeviceLost("d1", "gone"))
    asked = [device for device in (*DEVICES, "stranger") if _is_asked(gathering, device)]
    assert asked == ["d10", "d2"]
    assert gathering.asked_for("d2", FrameKind.WEIGHTS, step_at(0)) is None
    assert gathering.asked_for("d2", FrameKind.SMASHED, step_at(1)) is None


def _is_asked(gathering: Gathering, device: str) -> bool:
    return gathering.asked_for(device, FrameKind.SMASHED, step_at(0)) is not None


@pytest.mark.parametrize(
    "event",
    [
        FrameArrived("stranger", _answer("d0").frame),
        FrameArrived("d0", Frame(FrameKind.WEIGHTS, step_at(0), (W,))),
        FrameArrived("d0", Frame(FrameKind.SMASHED, StepId(8, 3, 1, 0), (W,))),
    ],
)
def test_what_nobody_was_asked_for_raises_and_changes_nothing(event: FrameArrived) -> None:
    gathering = _gathering()
    with pytest.raises(UnexpectedEventError, match="gathering SMASHED"):
        gathering.handle(event)
    assert list(gathering.missing) == sorted(DEVICES)
