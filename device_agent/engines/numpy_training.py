"""SGD, Adam and AdamW on numpy arrays, in place, rounding as torch's do.

Scalars are computed in double precision, arrays in their own, as torch does, so that the two
differ by float32 rounding alone.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from runtime.errors import SettingsError
from runtime.target_shape import target_shape
from runtime.wire.commands import OptimizerSpec
from runtime.wire.frames import Tensor

Array = NDArray[np.float32]
Slots = dict[str, Array]

Floats = NDArray[np.float32]
LossAndGradient = Callable[[Floats, Tensor], tuple[float, Floats]]
"""Outputs and labels, each [sample, ...], to the mean loss and its gradient for the outputs."""


def empty_slots(parameter: Array, spec: OptimizerSpec) -> Slots:
    """The optimiser's state of one parameter before the first step, in wire order.

    A momentum buffer of zeros is as good as none: the first step makes it the gradient.
    """
    return {
        slot: np.zeros(() if slot == "step" else parameter.shape, parameter.dtype)
        for slot in spec.slots
    }


def update(
    parameter: Array, gradient: Array, slots: Slots, spec: OptimizerSpec, *, learning_rate: float
) -> None:
    """Move a parameter against its gradient; writes the parameter and its slots."""
    if spec.weight_decay:
        if spec.name == "adamw":
            parameter *= 1 - learning_rate * spec.weight_decay
        else:
            gradient = gradient + spec.weight_decay * parameter
    if spec.name == "sgd":
        parameter -= learning_rate * _with_momentum(gradient, slots, spec)
    else:
        _step_adam(parameter, gradient, slots, spec, learning_rate=learning_rate)


def _with_momentum(gradient: Array, slots: Slots, spec: OptimizerSpec) -> Array:
    if not spec.momentum:
        return gradient
    buffer = slots["momentum_buffer"]
    buffer *= spec.momentum
    buffer += gradient
    return gradient + spec.momentum * buffer if spec.nesterov else buffer


def _step_adam(
    parameter: Array,
    gradient: Array,
    slots: Mapping[str, Array],
    spec: OptimizerSpec,
    *,
    learning_rate: float,
) -> None:
    slots["step"][...] += 1
    mean, square = slots["exp_avg"], slots["exp_avg_sq"]
    mean += (gradient - mean) * (1 - spec.beta1)
    square *= spec.beta2
    square += (1 - spec.beta2) * gradient * gradient
    step = float(slots["step"])
    correction1, correction2 = 1 - spec.beta1**step, 1 - spec.beta2**step
    denominator = np.sqrt(square)
    denominator /= np.float32(correction2**0.5)
    denominator += np.float32(spec.epsilon)
    parameter -= (learning_rate / correction1) * (mean / denominator)


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


def mean_absolute_error(outputs: Floats, targets: Tensor) -> tuple[float, Floats]:
    """Mean of the absolute differences over all values."""
    aligned = targets.reshape(target_shape(outputs.shape, targets.shape))
    difference = outputs - aligned.astype(outputs.dtype)
    gradient = np.sign(difference) * np.float32(1 / difference.size)
    return float(np.abs(difference).mean()), gradient.astype(np.float32, copy=False)


def binary_cross_entropy(outputs: Floats, targets: Tensor) -> tuple[float, Floats]:
    """Mean cross entropy of the sigmoids of the outputs, over all values."""
    aligned = targets.reshape(target_shape(outputs.shape, targets.shape)).astype(outputs.dtype)
    decay = np.exp(-np.abs(outputs))  # Never too large for its type.
    loss = np.maximum(outputs, 0) - outputs * aligned + np.log1p(decay)
    sigmoid = np.where(outputs >= 0, 1, decay) / (1 + decay)
    return float(loss.mean()), ((sigmoid - aligned) / np.float32(loss.size)).astype(outputs.dtype)


BUILT_IN: dict[str, LossAndGradient] = {
    "cross_entropy": cross_entropy,
    "mse": mean_squared_error,
    "l1": mean_absolute_error,
    "binary_cross_entropy": binary_cross_entropy,
}


def load_loss(name: str) -> LossAndGradient:
    """Give a built-in loss; one of the user's own needs torch to be differentiated."""
    if name not in BUILT_IN:
        raise SettingsError(
            f"loss {name!r} cannot run without torch; the onnxruntime engine has "
            f"{', '.join(BUILT_IN)}; use --engine torch on the devices"
        )
    return BUILT_IN[name]
