"""GELU spelled out, and the backward of the piecewise linear activations.

That multiplies by a mask: ONNX Runtime's `Where` is about ten times slower than a cast and a
product; the two differ only where the gradient is infinite or NaN, which no training survives.
"""

import math

import torch
from torch import Tensor

from edge_coordinator.onnx_export.decompositions.registry import decomposes

aten = torch.ops.aten


def masked(gradient: Tensor, condition: Tensor) -> Tensor:
    """Keep the gradient where the condition holds, else zero."""
    return gradient * condition.to(gradient.dtype)


@decomposes(aten.threshold_backward.default)
def relu_backward(gradient: Tensor, result: Tensor, threshold: float) -> Tensor:
    """Pass the gradient where the ReLU passed its input."""
    return masked(gradient, result > threshold)


@decomposes(aten.hardtanh_backward.default)
def hardtanh_backward(gradient: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """Pass the gradient strictly between the bounds (ReLU6 is one of these)."""
    return masked(gradient, torch.logical_and(x > low, x < high))


@decomposes(aten.leaky_relu_backward.default)
def leaky_relu_backward(
    gradient: Tensor,
    x: Tensor,
    slope: float,
    _is_result: bool,
) -> Tensor:
    """Pass the gradient where positive, else times the slope."""
    return gradient * ((x > 0).to(gradient.dtype) * (1 - slope) + slope)


@decomposes(aten.gelu.default)
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """Spell out what ONNX has an operator for only from opset 20 on."""
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
        return 0.5 * x * (1 + torch.tanh(inner))
    return 0.5 * x * (1 + torch.erf(x * math.sqrt(0.5)))
