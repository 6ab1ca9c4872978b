"""A network without its weights: as cheap as its description, until some layers are filled.

A device trains the first layers only, and their weights come from the coordinator. So the network
is built on torch's meta device, where tensors have shapes and no numbers, and what is opened gets
memory of its own. That cannot be done with every network: some look at their weights while they
are built, or keep tensors beside their state. Those are built as they are.
"""

import copy
import warnings
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from runtime.models.load import layer_shapes
from runtime.models.sequence import Network


class NoSkeletonError(Exception):
    """The network has to be built with its numbers."""


def build_skeleton(build: Callable[[], Network], sample_shape: tuple[int, ...]) -> Network:
    """Build without numbers; NoSkeletonError where that goes wrong, whatever the reason is."""
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")  # Of weights that are read from a file to no effect.
            network = build()
        layer_shapes(network, sample_shape)
    except Exception as error:  # Whatever the user's own network raises, without numbers.
        raise NoSkeletonError(str(error)) from error
    return network


def is_skeleton(network: nn.Module) -> bool:
    """Whether some of its tensors have no numbers."""
    return any(tensor.is_meta for tensor in network.state_dict().values())


def filled(layers: Network, sample_shape: tuple[int, ...]) -> Network:
    """Copy layers with memory for their state, which holds some usual numbers until it is loaded.

    What is tied stays tied. NoSkeletonError if the layers need tensors that are not their state.
    """
    generator = torch.Generator().manual_seed(0)  # Torch's own may be in use by other devices.
    state = layers.state_dict(keep_vars=True)
    memo: dict[int, Any] = {
        id(each): _usual(name, each, generator) for name, each in state.items() if each.is_meta
    }
    num_given = len(memo)
    try:
        copied = copy.deepcopy(layers, memo)
        with torch.no_grad():
            copied.eval()(torch.zeros(1, *sample_shape))
    except Exception as error:  # As above.
        raise NoSkeletonError(str(error)) from error
    if any(isinstance(each, Tensor) and each.is_meta for each in [*memo.values()][num_given:]):
        raise NoSkeletonError("it keeps tensors beside its state")
    return copied.train(layers.training)


def _usual(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers by which a network is as fast as by those that it is trained with."""
    tensor = torch.zeros_like(like, device="cpu")
    if like.dim() > 1 and like.is_floating_point():
        reach = prod(like.shape[1:]) ** -0.5 if like.numel() else 0.0
        tensor.uniform_(-reach, reach, generator=generator)
    elif name.endswith(("weight", "running_var")):
        tensor.fill_(1)
    if isinstance(like, nn.Parameter):
        return nn.Parameter(tensor, requires_grad=like.requires_grad)
    return tensor
