"""Losses by name or by path; each is the mean over the samples of a batch."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from runtime.errors import SettingsError
from runtime.plugins import import_function
from runtime.target_shape import IGNORED, target_shape
from runtime.wire.commands import LossOptions

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _aligned(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    shape = target_shape(tuple(outputs.shape), tuple(targets.shape))
    return targets.reshape(shape).to(outputs.dtype)


def _mean_squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(outputs, _aligned(outputs, targets))


def _mean_absolute_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.l1_loss(outputs, _aligned(outputs, targets))


def _binary_cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(outputs, _aligned(outputs, targets))


BUILT_IN: dict[str, Loss] = {
    "cross_entropy": lambda outputs, labels: functional.cross_entropy(outputs, labels.long()),
    "mse": _mean_squared_error,
    "l1": _mean_absolute_error,
    "binary_cross_entropy": _binary_cross_entropy,
}
"""Of outputs and labels. Binary cross entropy takes outputs before the sigmoid."""


def weighed_cross_entropy(options: LossOptions) -> Loss:
    """Give the cross entropy with weights of classes, and with smoothed labels.

    Each sample counts by the weight of its class, and the mean is over the samples: of torch's own
    it is over the weights, and then a part of a mini-batch is not its share of the whole.
    """
    weights = torch.tensor(options.class_weights) if options.class_weights else None

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        labels = labels.long()
        total = functional.cross_entropy(
            outputs,
            labels,
            weight=None if weights is None else weights.to(outputs),
            label_smoothing=options.label_smoothing,
            reduction="sum",
        )
        return total / (labels != IGNORED).sum()

    return loss


def load_loss(
    reference: str, *, base_dir: Path = Path(), options: LossOptions | None = None
) -> Loss:
    """Give the loss with this name, or the function at `package.module:function`."""
    if options is not None and reference == "cross_entropy":
        return weighed_cross_entropy(options)
    if reference in BUILT_IN:
        return BUILT_IN[reference]
    if ":" not in reference:
        raise SettingsError(
            f"no loss named {reference!r}; the built-in losses are {', '.join(BUILT_IN)}, and your "
            "own is 'package.module:function'"
        )
    return import_function(reference, base_dir=base_dir)
