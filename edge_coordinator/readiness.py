"""Whether what a device says of its data can be part of this job."""

from collections.abc import Iterable

import numpy as np

from runtime.wire.commands import Assignment, Ready


def why_unfit(ready: Ready, assignment: Assignment, others: Iterable[Ready]) -> str:
    """Say why a device cannot take part with labels like these; nothing if it can.

    Batches of one cluster are joined to one, and what a device announces is what room is made
    for: so an answer is not taken at its word. `others` are ready already, the first counts.
    """
    most = assignment.max_evaluation_samples
    if ready.num_held_out > most:
        return (
            f"it holds out {ready.num_held_out} samples to evaluate on; the job's "
            f"data.max_evaluation_samples is {most}"
        )
    if assignment.num_classes is not None:
        return _why_no_class_labels(ready)
    first = next(iter(others), ready)
    if _labels_of(ready) != _labels_of(first):
        return (
            f"its labels are {_in_words(ready)}, those of the devices before it "
            f"{_in_words(first)}; they have to be alike"
        )
    return ""


def _why_no_class_labels(ready: Ready) -> str:
    if not ready.label_shape and ready.label_dtype != "<f4":
        return ""
    return f"its labels are {_in_words(ready)}; the job's are one whole number a sample"


def _labels_of(ready: Ready) -> tuple[str, tuple[int, ...]]:
    return ready.label_dtype, ready.label_shape


def _in_words(ready: Ready) -> str:
    name = np.dtype(ready.label_dtype).name
    return f"{name} of shape {ready.label_shape}" if ready.label_shape else f"{name} numbers"
