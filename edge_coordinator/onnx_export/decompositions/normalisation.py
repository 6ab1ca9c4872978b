"""Weight and batch normalisation, with its running statistics as outputs, and their backward.

Torch's own translation to ONNX ignores that a batch norm is training.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from edge_coordinator.onnx_export.decompositions.registry import decomposes

aten = torch.ops.aten


class _Normalised(NamedTuple):
    """What the functional operator gives, in its order."""

    y: Tensor
    mean: Tensor
    reciprocal_std: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None


def _batch_dims(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view([1, -1] + [1] * (x.dim() - 2))


def _moved(running: Tensor | None, batch: Tensor, momentum: float) -> Tensor | None:
    return None if running is None else running * (1 - momentum) + batch * momentum


@decomposes(aten._native_batch_norm_legit_functional.default)
def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> _Normalised:
    """Normalise by the batch, and move the running statistics; or by the running statistics."""
    if not training:
        y = aten._native_batch_norm_legit_no_training(
            x, weight, bias, running_mean, running_var, momentum, eps
        )[0]
        return _Normalised(y, x.new_zeros(0), x.new_zeros(0), running_mean, running_var)
    mean = x.mean(_batch_dims(x))
    centred = x - _by_channel(mean, x)
    var = (centred * centred).mean(_batch_dims(x))
    reciprocal_std = torch.rsqrt(var + eps)
    y = centred * _by_channel(reciprocal_std if weight is None else reciprocal_std * weight, x)
    if bias is not None:
        y = y + _by_channel(bias, x)
    count = x.numel() / x.shape[1]
    unbiased = var * (count / (count - 1))
    new_mean = _moved(running_mean, mean, momentum)
    return _Normalised(y, mean, reciprocal_std, new_mean, _moved(running_var, unbiased, momentum))


@decomposes(aten.native_batch_norm.default, aten._native_batch_norm_legit.default)
def batch_norm_in_place(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Do the same, and write the running statistics where they were."""
    result = batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps)
    pairs = ((running_mean, result.running_mean), (running_var, result.running_var))
    for old, new in pairs:
        if training and old is not None and new is not None:
            old.copy_(new)
    return result.y, result.mean, result.reciprocal_std


@decomposes(aten._native_batch_norm_legit.no_stats)
def batch_norm_without_statistics(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    _training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise by the batch alone."""
    result = batch_norm(x, weight, bias, None, None, True, momentum, eps)
    return result.y, result.mean, result.reciprocal_std


@decomposes(aten.native_batch_norm_backward.default)
def batch_norm_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    saved_mean: Tensor | None,
    saved_reciprocal_std: Tensor | None,
    training: bool,
    eps: float,
    output_mask: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Give the gradients of input, weight and bias, those that `output_mask` asks for."""
    mean, reciprocal_std = saved_mean, saved_reciprocal_std
    if not training:
        assert running_var is not None
        mean, reciprocal_std = running_mean, torch.rsqrt(running_var + eps)
    assert mean is not None
    assert reciprocal_std is not None
    dims = _batch_dims(x)
    centred = x - _by_channel(mean, x)
    of_bias, of_weight = gradient.sum(dims), (gradient * centred).sum(dims) * reciprocal_std
    of_input = gradient
    if training:
        count = x.numel() / x.shape[1]
        of_input = of_input - _by_channel(of_bias / count, x)
        of_input = of_input - centred * _by_channel(of_weight * reciprocal_std / count, x)
    scale = reciprocal_std if weight is None else reciprocal_std * weight
    of_input = of_input * _by_channel(scale, x)
    wanted = zip((of_input, of_weight, of_bias), output_mask, strict=True)
    asked = [value if is_asked else None for value, is_asked in wanted]
    return asked[0], asked[1], asked[2]


@decomposes(aten.native_group_norm.default)
def group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    num_samples: int,
    _num_channels: int,
    _num_places: int,
    num_groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each sample by groups of its channels."""
    grouped = x.reshape(num_samples, num_groups, -1)
    mean = grouped.mean(2, keepdim=True)
    centred = grouped - mean
    reciprocal_std = torch.rsqrt((centred * centred).mean(2, keepdim=True) + eps)
    y = (centred * reciprocal_std).reshape(x.shape)
    if weight is not None:
        y = y * _by_channel(weight, x)
    if bias is not None:
        y = y + _by_channel(bias, x)
    return y, mean.squeeze(2), reciprocal_std.squeeze(2)


@decomposes(aten._weight_norm_interface.default)
def weight_norm(direction: Tensor, length: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    """Give weights of a direction and a length along `dim`, and the norms of the direction."""
    norms = (direction * direction).sum(_other_dims(direction, dim), keepdim=True).sqrt()
    return direction * (length / norms), norms


@decomposes(aten._weight_norm_interface_backward.default)
def weight_norm_backward(
    gradient: Tensor, direction: Tensor, length: Tensor, norms: Tensor, dim: int
) -> tuple[Tensor, Tensor]:
    """Give the gradients of direction and length."""
    unit = direction / norms
    of_length = (gradient * unit).sum(_other_dims(direction, dim), keepdim=True)
    return (gradient - unit * of_length) * (length / norms), of_length


def _other_dims(x: Tensor, dim: int) -> list[int]:
    return [other for other in range(x.dim()) if other != dim % x.dim()]
