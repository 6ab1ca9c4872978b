"""The cut table of a network, counted layer by layer.

FLOPs are counted as `flop_count` says, those of one sample in training, on tensors without numbers
where that is possible: nothing is computed. The gradient with respect
to the network's own input is not counted, at any cut, since nobody needs it: so the first layer
with parameters costs half of what it would cost further up in its backward pass, and a layer
before it nothing.
"""

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from math import prod

import torch
from torch import nn

from profiles.cuts import CutTable, LayerCost
from runtime.errors import SettingsError
from runtime.models.dropout import seed_dropout, set_dropout_keys
from runtime.models.flop_count import count_flop
from runtime.models.given_gradient import with_gradient
from runtime.models.graph.numberless import ShapesAlone, is_quick, numberless
from runtime.models.load import device_of, layer_shapes
from runtime.models.sequence import Shape, layers_of
from runtime.seeding.torch_generator import forked_generator

BATCH = 2
"""Samples to count with; batch norm refuses to train on one."""
_OWN_KERNELS = (nn.RNNBase, nn.RNNCellBase)
"""What torch puts together otherwise on its meta device than on the processor."""


def measure_cut_table(
    network: nn.Sequential, *, name: str, input_shape: tuple[int, ...]
) -> CutTable:
    """Count what each layer costs for one sample of `input_shape`, in training.

    The network and torch's random generator stay as they were. Raises SettingsError when the
    network does not take such a sample.
    """
    shapes = layer_shapes(network, input_shape)
    costs = None
    if is_quick() and not any(isinstance(each, _OWN_KERNELS) for each in network.modules()):
        with (
            suppress(Exception),
            ShapesAlone(),
        ):  # With numbers there may be another error, or none.
            costs = _measure(numberless(network), input_shape, shapes, name=name)
    costs = costs or _measure(copy.deepcopy(network), input_shape, shapes, name=name)
    kinds = (getattr(layer, "kind", type(layer).__name__) for layer in layers_of(network).values())
    return CutTable(
        network=name,
        input_shape=input_shape,
        input_bytes=prod(input_shape) * torch.float32.itemsize,
        layers=tuple(replace(cost, kind=kind) for cost, kind in zip(costs, kinds, strict=True)),
    )


def _measure(
    network: nn.Sequential, input_shape: tuple[int, ...], shapes: Sequence[Shape], *, name: str
) -> list[LayerCost]:
    """Count each layer of a network that is the caller's own, [layer]."""
    subject = seed_dropout(network).train()
    set_dropout_keys(subject, [((0,), BATCH)])
    costs = []
    batch = torch.ones(BATCH, *input_shape, device=device_of(subject))
    with forked_generator():
        for (layer_name, layer), shape in zip(layers_of(subject).items(), shapes, strict=True):
            try:
                cost, batch = _measure_layer(layer, batch, name=layer_name, shape=shape)
            except Exception as error:  # It may be the user's own.
                reason = str(error).partition("\n")[0] or type(error).__name__
                raise SettingsError(
                    f"layer {layer_name} of {name} cannot train: {reason}"
                ) from error
            costs.append(cost)
    return costs


def _measure_layer(
    layer: nn.Module, batch: torch.Tensor, *, name: str, shape: tuple[int, ...]
) -> tuple[LayerCost, torch.Tensor]:
    """Count one layer; also returns its output, which needs a gradient if a layer so far does."""
    with count_flop() as forward:
        # A copy, since a layer may overwrite its input.
        output: torch.Tensor = layer(batch.clone())
    whole = layer.state_dict(keep_vars=True).values()
    frozen = [each for each in whole if _is_frozen(each)]
    state = [each for each in whole if not _is_frozen(each)]
    cost = LayerCost(
        name=name,
        forward_flop=forward.flop / BATCH,
        backward_flop=_count_backward(layer, batch, output) / BATCH,
        state_bytes=sum(value.numel() * value.element_size() for value in state),
        state_shapes=tuple(tuple(t.shape) for t in state if t.dtype == torch.float32),
        activation_shape=shape,
        activation_bytes=prod(shape) * output.element_size(),
        frozen_bytes=sum(value.numel() * value.element_size() for value in frozen),
    )
    return cost, output.detach().requires_grad_(output.requires_grad)


def _is_frozen(tensor: torch.Tensor) -> bool:
    """Whether it does not travel with the device-side model."""
    return isinstance(tensor, nn.Parameter) and not tensor.requires_grad


def _count_backward(layer: nn.Module, batch: torch.Tensor, output: torch.Tensor) -> int:
    wanted = [tensor for tensor in (batch, *layer.parameters()) if tensor.requires_grad]
    if not wanted or not output.requires_grad:
        return 0
    number = with_gradient(output, torch.ones_like(output))
    if number.is_complex():
        number = number.real
    with count_flop() as backward:
        torch.autograd.grad(number, wanted, allow_unused=True)
    return backward.flop
