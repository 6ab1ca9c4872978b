"""How good outputs are, by the task: what labels and outputs look like says which it is.

Each batch gives sums, sums of batches add up, and the figures follow from them: so an evaluation
holds no outputs, and is the same however its batches are shared out. A metric of the user's own
sees all outputs at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.errors import SettingsError
from runtime.models.losses import BUILT_IN as BUILT_IN_LOSSES
from runtime.models.losses import Loss
from runtime.plugins import described, import_function

Sums = Mapping[str, NDArray[np.float64]]
Figures = dict[str, float]
"""By name, the one that counts first."""
OwnMetric = Callable[[torch.Tensor, torch.Tensor], object]
"""Of all outputs and all labels."""

BUILT_IN = ("accuracy", "f1", "iou", "exact", "r2", "mae")
"""Names of the figures that there are; a task has some of them."""
LOWER_IS_BETTER = frozenset({"mae"})
MOST_CONFUSED = 1000
"""Classes of which a confusion matrix is made."""


def is_classification(outputs: torch.Tensor, labels: torch.Tensor) -> bool:
    """Whether the largest of a sample's outputs names its class: [n, class] and whole [n]."""
    return _is_whole(labels) and outputs.dim() == 2 and outputs.shape[1] > 1 and labels.dim() == 1


def sums_of(outputs: torch.Tensor, labels: torch.Tensor, loss: Loss) -> Sums:
    """What a batch adds to the figures; empty where outputs and labels belong to no task.

    Where a sample has as many outputs as labels, the loss says whether they are numbers.
    """
    num_values = outputs[0].numel() if len(outputs) else 0
    if is_classification(outputs, labels):
        return _of_classes(outputs, labels)
    if _is_whole(labels) and outputs.dim() > 2 and outputs.shape[2:] == labels.shape[1:]:
        return {"pixels": _confusion(outputs, labels)}
    if labels.numel() != len(outputs) * num_values:
        return {}
    flat = (len(outputs), num_values)
    is_yes_or_no = loss is BUILT_IN_LOSSES["binary_cross_entropy"]
    if is_yes_or_no or (_is_whole(labels) and loss not in BUILT_IN_LOSSES.values()):
        return _of_several(outputs.reshape(flat), labels.reshape(flat))
    return _of_numbers(outputs.reshape(flat).double(), labels.reshape(flat).double())


def figures_of(sums: Sums) -> Figures:
    """Work the figures out of the sums over all batches."""
    if "confusion" in sums:
        right, both = np.diag(sums["confusion"]).sum(), _f1(sums["confusion"])
        return {"accuracy": _ratio(right, sums["confusion"].sum()), "f1": both}
    if "right" in sums:
        return {"accuracy": _ratio(sums["right"].sum(), sums["count"].sum())}
    if "pixels" in sums:
        pixels = sums["pixels"]
        right = np.diag(pixels)
        union = pixels.sum(0) + pixels.sum(1) - right
        mean = float(np.mean(right[union > 0] / union[union > 0]))
        return {"iou": mean, "accuracy": _ratio(right.sum(), pixels.sum())}
    if "exact" in sums:
        true, false, missed = sums["of_labels"]
        both = _ratio(2 * true.sum(), (2 * true + false + missed).sum())
        return {"f1": both, "exact": _ratio(sums["exact"].sum(), sums["count"].sum())}
    return _figures_of_numbers(sums) if "numbers" in sums else {}


def names_of(sums: Sums) -> tuple[str, ...]:
    """Figures that a task has, the one that counts first."""
    return next((names for part, names in _NAMES.items() if part in sums), ())


_NAMES = {
    "confusion": ("accuracy", "f1"),
    "right": ("accuracy",),
    "pixels": ("iou", "accuracy"),
    "of_labels": ("f1", "exact"),
    "numbers": ("r2", "mae"),
}


def add(parts: Sequence[Sums]) -> Sums:
    """Add batches up, in their order."""
    return {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}


@dataclass(frozen=True)
class Metric:
    """Which figure says which of two rounds is better, and which target is reached."""

    name: str = "auto"
    """One of the built-in figures, `auto` for the task's first, or `package.module:function`."""
    own: OwnMetric | None = None

    @property
    def lower_is_better(self) -> bool:
        """Whether the best is the lowest: a function says so by an attribute of this name."""
        if getattr(self.own, "higher_is_better", None) is False:  # As torchmetrics says it.
            return True
        return self.name in LOWER_IS_BETTER or bool(getattr(self.own, "lower_is_better", False))

    def of_own(self, outputs: torch.Tensor, labels: torch.Tensor) -> Figures:
        """Call the user's own function; SettingsError unless it gives one number."""
        assert self.own is not None
        try:
            found: Any = self.own(outputs, labels)
            if (forget := getattr(self.own, "reset", None)) is not None:
                forget()  # A metric of torchmetrics keeps what it saw, for a mean over batches.
        except Exception as error:  # It is the user's own function.
            raise SettingsError(
                f"the metric {self.name} cannot take outputs of shape {tuple(outputs.shape)} and "
                f"labels of shape {tuple(labels.shape)}: {described(error)}"
            ) from error
        try:
            value = float(found)
        except (TypeError, ValueError, RuntimeError) as error:
            raise SettingsError(
                f"the metric {self.name} returned a {type(found).__name__}; it has to be one number"
            ) from error
        return {self.name.rpartition(":")[2]: value}

    def chosen(self, figures: Figures) -> str:
        """Name of the figure that counts; empty if there is none.

        One of the user's own counts also where it gave no number: no other stands in for it.
        """
        wanted = self.name.rpartition(":")[2]
        if wanted == "auto":
            return next(iter(figures), "")
        return wanted if wanted in figures or self.own else ""


def load_metric(reference: str, *, base_dir: Path) -> Metric:
    """Give the metric with this name, or the function at `package.module:function`."""
    if ":" in reference:
        return Metric(reference, import_function(reference, base_dir=base_dir))
    if reference not in ("auto", *BUILT_IN):
        raise SettingsError(
            f"no metric named {reference!r}; there are auto, {', '.join(BUILT_IN)}, and your own "
            "is 'package.module:function'"
        )
    return Metric(reference)


def _is_whole(labels: torch.Tensor) -> bool:
    return not labels.is_floating_point()


def _of_classes(outputs: torch.Tensor, labels: torch.Tensor) -> Sums:
    if outputs.shape[1] <= MOST_CONFUSED:
        return {"confusion": _confusion(outputs, labels)}
    right = float((outputs.argmax(1) == labels).sum())
    return {"right": np.array(right), "count": np.array(float(len(labels)))}


def _confusion(outputs: torch.Tensor, labels: torch.Tensor) -> NDArray[np.float64]:
    """How many of a class were taken for which, [class, taken for]; labels that are none are out.

    So is what a loss ignores, as -100 is.
    """
    num_classes = outputs.shape[1]
    truth, taken = labels.reshape(-1).long(), outputs.argmax(1).reshape(-1)
    counted = (truth >= 0) & (truth < num_classes)
    pairs = truth[counted] * num_classes + taken[counted]
    counts = torch.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).numpy().astype(np.float64)


def _of_several(outputs: torch.Tensor, labels: torch.Tensor) -> Sums:
    """Of labels that a sample has or has not, each of which an output above 0 claims."""
    claimed, there = outputs > 0, labels > 0
    each = [claimed & there, claimed & ~there, ~claimed & there]
    counts = np.stack([part.sum(0).numpy() for part in each]).astype(np.float64)
    exact = float((claimed == there).all(1).sum())
    return {"of_labels": counts, "exact": np.array(exact), "count": np.array(float(len(labels)))}


def _of_numbers(outputs: torch.Tensor, targets: torch.Tensor) -> Sums:
    error = outputs - targets
    each = [torch.ones_like(targets), error.abs(), error.square(), targets, targets.square()]
    return {"numbers": np.stack([part.sum(0).numpy() for part in each])}


def _figures_of_numbers(sums: Sums) -> Figures:
    """R² is the mean over the targets; one that is the same everywhere has none."""
    count, absolute, squared, total, square_total = sums["numbers"]
    spread = square_total - total**2 / count
    varies = spread > 1e-12 * np.maximum(square_total, 1e-300)
    figures = {"mae": float(np.mean(absolute / count))}
    if varies.all():
        return {"r2": float(np.mean(1 - squared / spread))} | figures
    return figures


def _f1(confusion: NDArray[np.float64]) -> float:
    """Mean over the classes that are there, or were taken for there."""
    right = np.diag(confusion)
    either = confusion.sum(0) + confusion.sum(1)
    return float(np.mean(2 * right[either > 0] / either[either > 0])) if either.any() else 0.0


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
