"""SGD, Adam and AdamW by the operators, and in the order, in which `torch.optim` applies them.

Bit for bit what `torch.optim` gives on a processor, with the same state. Its own classes import
torch's compiler before the first step, though nothing is compiled here: 75 MB and more than a
second in each process, on a device as on the server.
"""

from collections.abc import Mapping

import torch

from runtime.wire.commands import OptimizerSpec

Slots = dict[str, torch.Tensor]
"""Slot name to tensor, as torch's optimisers keep it; empty before the first step."""


@torch.no_grad()
def step(
    state: Mapping[torch.nn.Parameter, Slots], spec: OptimizerSpec, *, learning_rate: float
) -> None:
    """Update parameters and their slots in place; those without a gradient stay."""
    for parameter, slots in state.items():
        if parameter.grad is None:
            continue
        if spec.name == "sgd":
            _step_sgd(parameter, parameter.grad, slots, spec, learning_rate=learning_rate)
        else:
            _step_adam(parameter, parameter.grad, slots, spec, learning_rate=learning_rate)


def _step_sgd(
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    slots: Slots,
    spec: OptimizerSpec,
    *,
    learning_rate: float,
) -> None:
    if spec.weight_decay:
        gradient = gradient.add(parameter, alpha=spec.weight_decay)
    if spec.momentum:
        if "momentum_buffer" in slots:
            buffer = slots["momentum_buffer"].mul_(spec.momentum).add_(gradient)
        else:
            buffer = slots["momentum_buffer"] = gradient.detach().clone()
        gradient = gradient.add(buffer, alpha=spec.momentum) if spec.nesterov else buffer
    parameter.add_(gradient, alpha=-learning_rate)


def _step_adam(
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    slots: Slots,
    spec: OptimizerSpec,
    *,
    learning_rate: float,
) -> None:
    if not slots:
        slots["step"] = torch.tensor(0.0)
        slots["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        slots["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    slots["step"] += 1
    if spec.weight_decay and spec.name == "adamw":
        parameter.mul_(1 - learning_rate * spec.weight_decay)
    elif spec.weight_decay:
        gradient = gradient.add(parameter, alpha=spec.weight_decay)
    mean, square = slots["exp_avg"], slots["exp_avg_sq"]
    mean.lerp_(gradient, 1 - spec.beta1)
    square.mul_(spec.beta2).addcmul_(gradient, gradient, value=1 - spec.beta2)
    num_steps = slots["step"].item()
    correction1, correction2 = 1 - spec.beta1**num_steps, 1 - spec.beta2**num_steps
    denominator = (square.sqrt() / correction2**0.5).add_(spec.epsilon)
    parameter.addcdiv_(mean, denominator, value=-learning_rate / correction1)
