"""Whether a device's answer to the assignment fits the job, and the devices before it."""

import json
from collections.abc import Iterable

import numpy as np

from edge_coordinator.job.labels import LabelForm
from runtime.wire.commands import Assignment, Ready
from runtime.wire.names import FeatureNames, in_words, why_other_features


def why_unfit(
    ready: Ready,
    assignment: Assignment,
    others: Iterable[Ready],
    *,
    labels: LabelForm | None = None,
    numbered: bool = False,
    gathers: bool = False,
    features: FeatureNames | None = None,
) -> str:
    """Say why a device cannot take part with labels like these; nothing if it can.

    Batches of one cluster are joined to one, and what a device announces is what room is made
    for: so an answer is not taken at its word. `labels` is what the job says of them; where it
    cannot, they have to be like those of the first of `others`, who are ready already.
    `numbered` where the labels of the test set are numbers, `gathers` where the names of all
    devices' classes are to be put together; `features` are those of the test set.
    """
    most = assignment.max_evaluation_samples
    if ready.num_held_out > most:
        return (
            f"it holds out {ready.num_held_out} samples to evaluate on; the job's "
            f"data.max_evaluation_samples is {most}"
        )
    first = next(iter(others), ready)
    return (
        why_other_features(ready.feature_names, features, of="the test set")
        or why_other_features(ready.feature_names, first.feature_names, of="devices before it")
        or _why_other_labels(
            *(ready, assignment, first), labels=labels, numbered=numbered, gathers=gathers
        )
    )


def _why_other_labels(
    ready: Ready,
    assignment: Assignment,
    first: Ready,
    *,
    labels: LabelForm | None,
    numbered: bool,
    gathers: bool,
) -> str:
    may_differ = gathers and None not in (ready.class_names, first.class_names)
    if not may_differ and (
        unfit := _why_other_classes(ready, assignment, first, numbered=numbered)
    ):
        return unfit
    if assignment.num_classes is not None:
        return _why_no_class_labels(ready)
    if labels is not None:
        return labels.why_unfit(ready)
    if _labels_of(ready) != _labels_of(first):
        return (
            f"its labels are {_in_words(ready)}, those of the devices before it "
            f"{_in_words(first)}; they have to be alike"
        )
    return ""


def _why_other_classes(
    ready: Ready, assignment: Assignment, first: Ready, *, numbered: bool
) -> str:
    """Compare names where the job has none: each device numbers its labels along its own."""
    if assignment.classes is not None:
        return ""
    listed = f"; list all in the job's data.classes, as in {json.dumps(_all_names(ready, first))}"
    if numbered and ready.class_names is not None:
        return f"its classes have names, the labels of the test set are numbers{listed}"
    if ready.class_names != first.class_names:
        return (
            f"its classes are {_names_in_words(ready)}, those of the devices before it "
            f"{_names_in_words(first)}{listed}"
        )
    return ""


def _all_names(*answers: Ready) -> list[str]:
    return sorted({name for ready in answers for name in ready.class_names or ()})


def _names_in_words(ready: Ready) -> str:
    return in_words(ready.class_names) if ready.class_names else "numbers"


def _why_no_class_labels(ready: Ready) -> str:
    if not ready.label_shape and ready.label_dtype != "<f4":
        return ""
    return f"its labels are {_in_words(ready)}; the job's are one whole number a sample"


def _labels_of(ready: Ready) -> tuple[str, tuple[int, ...]]:
    return ready.label_dtype, ready.label_shape


def _in_words(ready: Ready) -> str:
    name = np.dtype(ready.label_dtype).name
    return f"{name} of shape {ready.label_shape}" if ready.label_shape else f"{name} numbers"
