"""Which answers to the assignment are taken, and which bar a device."""

import pytest

from edge_coordinator.devices.fitness import why_unfit
from edge_coordinator.devices.registry import Registry
from runtime.wire.commands import Ready
from runtime.wire.names import FeatureNames
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


def test_tables_of_other_columns_or_of_another_order_do_not_train_together() -> None:
    heat, other = FeatureNames.of(("heat", "load")), FeatureNames.of(("load", "heat"))
    ours, theirs = _ready(feature_names=heat), _ready(feature_names=other)
    assert why_unfit(ours, ASSIGNMENT, [ours], features=heat) == ""
    assert why_unfit(ours, ASSIGNMENT, [READY], features=None) == ""
    said = why_unfit(ours, ASSIGNMENT, [theirs])
    assert "names of its 2 features are heat, load, those of devices before it (2) load" in said
    assert "those of the test set (2) load, heat" in why_unfit(ours, ASSIGNMENT, [], features=other)


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


def test_whoever_counts_along_its_own_classes_is_asked_again_once_all_are_known() -> None:
    agreed = ASSIGNMENT.model_copy(update={"classes": ("a", "b")})
    registry = Registry(assignment=ASSIGNMENT, gathers=True)
    for device in ("both", "one", "late"):
        registry.note_status(device, STATUS)
    assert registry.note_ready("both", _ready(class_names=("a", "b"))) == ""
    assert registry.note_ready("one", _ready(class_names=("b",))) == ""
    registry.agree(agreed)
    assert list(registry.ready) == ["both"]
    registry.note_ready("late", _ready(class_names=("c",)))  # It was asked before.
    assert registry.unassigned == ["late", "one"]
    registry.note_ready("one", READY)
    assert list(registry.ready) == ["both", "one"]
