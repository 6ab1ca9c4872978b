"""Which answers to the assignment are taken, and which bar a device."""

import pytest

from edge_coordinator.devices.registry import Registry, why_unfit
from runtime.wire.commands import Ready
from tests.turn import ASSIGNMENT, READY, STATUS

ANY_LABELS = ASSIGNMENT.model_copy(update={"num_classes": None})


def _ready(**changes: object) -> Ready:
    return Ready.model_validate({**READY.model_dump(), **changes})


def test_the_honest_answer_is_taken() -> None:
    assert why_unfit(READY, ASSIGNMENT, [READY]) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_held_out": 2**40}, "holds out 1099511627776 samples"),
        ({"num_held_out": 11}, "the job's data.max_evaluation_samples is 10"),
        ({"label_shape": (1,)}, "one whole number a sample"),
        ({"label_dtype": "<f4"}, "one whole number a sample"),
    ],
)
def test_what_does_not_fit_the_job_is_said(changes: dict[str, object], words: str) -> None:
    assert words in why_unfit(_ready(**changes), ASSIGNMENT, [])


@pytest.mark.parametrize("changes", [{"label_shape": (1,)}, {"label_dtype": "<f4"}])
def test_labels_of_no_classes_have_to_be_like_those_of_the_device_before(
    changes: dict[str, object],
) -> None:
    registry = Registry(assignment=ANY_LABELS)
    for device in ("a", "b", "c"):
        registry.note_status(device, STATUS)
    assert registry.note_ready("a", _ready(label_dtype="<i8")) == ""
    assert registry.note_ready("b", _ready(**{"label_dtype": "<i8", **changes})) != ""
    assert registry.note_ready("c", _ready(label_dtype="<i8")) == ""
    assert list(registry.ready) == ["a", "c"]
    assert "they have to be alike" in registry.barred["b"]
