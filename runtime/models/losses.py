"""Losses by name or by path; each is the mean over the samples of a batch."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from runtime.errors import SettingsError
from runtime.factories import import_factory

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

BUILT_IN: dict[str, Loss] = {
    "cross_entropy": lambda outputs, labels: functional.cross_entropy(outputs, labels.long()),
    "mse": lambda outputs, targets: functional.mse_loss(outputs, targets.to(outputs.dtype)),
}


def load_loss(reference: str, *, base_dir: Path = Path()) -> Loss:
    """Give the loss with this name, or the function at `package.module:function`."""
    if reference in BUILT_IN:
        return BUILT_IN[reference]
    if ":" not in reference:
        raise SettingsError(
            f"no loss named {reference!r}; the built-in losses are {', '.join(BUILT_IN)}, and your "
            "own is 'package.module:function'"
        )
    return import_factory(reference, base_dir=base_dir)
