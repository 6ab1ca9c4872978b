"""SGD, Adam and AdamW on numpy arrays, in place, rounding as torch's do.

Scalars are computed in double precision, arrays in their own, as torch does, so that the two
differ by float32 rounding alone.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from runtime.wire.commands import OptimizerSpec

Array = NDArray[np.float32]
Slots = dict[str, Array]


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
