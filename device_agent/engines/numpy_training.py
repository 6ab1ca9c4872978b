"""SGD, Adam and AdamW on numpy arrays, in place, rounding as torch's do.

Scalars are computed in double precision, arrays in their own, as torch does, so that the two
differ by float32 rounding alone.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from runtime.errors import SettingsError
from runtime.target_shape import target_shape
from runtime.wire.commands import Clip, LossOptions, OptimizerSpec
from runtime.wire.frames import Tensor

Array = NDArray[np.float32]
Slots = dict[str, Array]

Floats = NDArray[np.float32]
LossAndGradient = Callable[[Floats, Tensor], tuple[float, Floats]]
"""Outputs and labels, each [sample, ...], to the mean loss and its gradient for the outputs."""


_TOO_SMALL = np.float32(1e-6)
"""To divide by, as torch has it."""


def empty_slots(parameter: Array, spec: OptimizerSpec) -> Slots:
    """The optimiser's state of one parameter before the first step, in wire order.

    A momentum buffer of zeros is as good as none: the first step makes it the gradient.
    """
    return {
        slot: np.zeros(() if slot == "step" else parameter.shape, parameter.dtype)
        for slot in spec.slots
    }


def clipped(gradients: Mapping[str, Array], clip: Clip | None) -> dict[str, Array]:
    """Scale gradients down to the norm that they may have, as `clip_grad_norm_` does."""
    if clip is None:
        return dict(gradients)
    norms = {name: np.float32(np.linalg.norm(each)) for name, each in gradients.items()}
    if clip.each == "side":
        norms = dict.fromkeys(norms, np.float32(np.linalg.norm(list(norms.values()))))
    factors = {name: np.float32(clip.norm / (norm + _TOO_SMALL)) for name, norm in norms.items()}
    return {name: each * min(factors[name], np.float32(1)) for name, each in gradients.items()}


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


def weighed_cross_entropy(options: LossOptions) -> LossAndGradient:
    """Give the cross entropy with weights of classes and smoothed labels, the mean over samples.

    With q_c = w_c ((1 - s) [c is the label] + s / C) it is - sum over c of q_c log p_c.
    """

    def loss(logits: Floats, labels: Tensor) -> tuple[float, Floats]:
        num_classes, smoothing = logits.shape[1], options.label_smoothing
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        share = np.full_like(log_probability, smoothing / num_classes)
        where = np.expand_dims(labels.astype(np.int64), 1)
        np.put_along_axis(share, where, 1 - smoothing + smoothing / num_classes, axis=1)
        if options.class_weights:
            axes = (1, -1) + (1,) * (logits.ndim - 2)
            share *= np.array(options.class_weights, dtype=share.dtype).reshape(axes)
        gradient = np.exp(log_probability) * share.sum(axis=1, keepdims=True) - share
        total = -(share * log_probability).sum()
        return float(total / labels.size), gradient / np.float32(labels.size)

    return loss


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


def load_loss(name: str, options: LossOptions | None = None) -> LossAndGradient:
    """Give a built-in loss; one of the user's own needs torch to be differentiated."""
    if options is not None and name == "cross_entropy":
        return weighed_cross_entropy(options)
    if name not in BUILT_IN:
        raise SettingsError(
            f"loss {name!r} cannot run without torch; the onnxruntime engine has "
            f"{', '.join(BUILT_IN)}; use --engine torch on the devices"
        )
    return BUILT_IN[name]
