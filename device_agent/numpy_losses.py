"""The built-in losses in numpy, for a device that trains a whole network without torch."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from runtime.errors import SettingsError
from runtime.target_shape import target_shape
from runtime.wire.frames import Tensor

Floats = NDArray[np.float32]
LossAndGradient = Callable[[Floats, Tensor], tuple[float, Floats]]
"""Outputs and labels, each [sample, ...], to the mean loss and its gradient for the outputs."""


def cross_entropy(logits: Floats, labels: Tensor) -> tuple[float, Floats]:
    """Mean cross entropy; logits are [sample, class, ...], labels classes [sample, ...]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    where = np.expand_dims(labels.astype(np.int64), 1)
    loss = -np.take_along_axis(log_probability, where, axis=1).mean()
    gradient = np.exp(log_probability)
    kept = np.take_along_axis(gradient, where, axis=1)
    np.put_along_axis(gradient, where, kept - 1, axis=1)
    gradient /= labels.size
    return float(loss), gradient


def mean_squared_error(outputs: Floats, targets: Tensor) -> tuple[float, Floats]:
    """Mean of the squared differences over all values."""
    aligned = targets.reshape(target_shape(outputs.shape, targets.shape))
    difference = outputs - aligned.astype(outputs.dtype)
    return float(np.square(difference).mean()), difference * np.float32(2 / difference.size)


BUILT_IN: dict[str, LossAndGradient] = {
    "cross_entropy": cross_entropy,
    "mse": mean_squared_error,
}


def load_loss(name: str) -> LossAndGradient:
    """Give a built-in loss; one of the user's own needs torch to be differentiated."""
    if name not in BUILT_IN:
        raise SettingsError(
            f"loss {name!r} cannot run without torch; the onnxruntime engine has "
            f"{', '.join(BUILT_IN)}; use --engine torch on the devices"
        )
    return BUILT_IN[name]
