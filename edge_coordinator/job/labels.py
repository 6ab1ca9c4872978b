"""What the labels of a job's samples look like: the job says so, not the first device to come."""

from dataclasses import dataclass

import numpy as np

from edge_coordinator.job.job import Job
from runtime.wire.commands import Ready

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LabelForm:
    """What each device's labels have to be like."""

    shape: Shape
    """Of one sample."""
    dtype: str | None
    """As numpy spells it; None for any number."""
    is_exact: bool
    """Whether axes of one value matter."""
    said_by: str

    def why_unfit(self, ready: Ready) -> str:
        """Say why a device's labels cannot be used; nothing if they can."""
        shapes = [ready.label_shape, self.shape]
        if not self.is_exact:
            shapes = [tuple(size for size in shape if size > 1) for shape in shapes]
        if shapes[0] == shapes[1] and self.dtype in {None, ready.label_dtype}:
            return ""
        kind = f"{np.dtype(self.dtype).name} " if self.dtype else ""
        return (
            f"its labels are {np.dtype(ready.label_dtype).name} of shape {ready.label_shape}; by "
            f"{self.said_by} the job's are {kind}of shape {self.shape}"
        )


def label_form(job: Job) -> LabelForm | None:
    """Say what a job's labels look like.

    None if they are classes, whose form is known, or if nobody can say: a loss of one's own, and
    no test set.
    """
    if job.assignment.num_classes is not None:
        return None
    loss, outputs = job.settings.training.loss, job.shapes[-1]
    if loss in ("mse", "l1", "binary_cross_entropy"):
        said_by = f"the network's outputs of shape {outputs} and the loss {loss}"
        return LabelForm(outputs, None, is_exact=False, said_by=said_by)
    if job.test is not None:
        y = job.test.y
        dtype = "<i8" if np.issubdtype(y.dtype, np.integer) else "<f4"
        return LabelForm(y.shape[1:], dtype, is_exact=True, said_by="the test set")
    if loss == "cross_entropy":
        said_by = f"the network's outputs of shape {outputs} and the loss cross_entropy"
        return LabelForm(outputs[1:], None, is_exact=True, said_by=said_by)
    return None
