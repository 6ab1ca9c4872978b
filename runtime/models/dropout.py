"""Dropout layers whose masks come from the step's key instead of torch's random generator."""

from collections.abc import Iterable, Iterator
from typing import cast

import numpy as np
import torch
from torch import nn

from runtime.dropout_masks import dropout_mask
from runtime.errors import SettingsError

Slice = tuple[tuple[int, ...], int]
"""The key of one device's step, and how many samples of the batch are that device's."""

ELEMENT_WISE = (nn.Dropout,)
CHANNEL_WISE = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
NOT_SEEDED = (nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU)


class SeededDropout(nn.Module):
    """Dropout that draws a mask for each device's slice of the batch from that slice's key.

    `layer` is the full name within the whole network, which a cut does not change. A channel-wise
    layer drops whole channels, the second axis.
    """

    def __init__(self, p: float, *, layer: str, channel_wise: bool) -> None:
        super().__init__()
        self.p = p
        self.layer = layer
        self.channel_wise = channel_wise
        self.slices: tuple[Slice, ...] = ()
        self.given_mask: torch.Tensor | None = None
        """A mask to use as it is (the input of an exported graph); None draws from the keys."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply by the mask in training; return `x` itself in evaluation."""
        if not self.training or self.p == 0:
            return x
        if self.given_mask is not None:
            return x * self.given_mask
        return x * torch.from_numpy(self._draw(tuple(x.shape)))

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the mask's shape for a batch of this shape."""
        if not self.channel_wise:
            return shape
        return (*shape[:2], *(1 for _ in shape[2:]))

    def extra_repr(self) -> str:
        """Say what the layer's repr shows beside its type."""
        return f"p={self.p}, layer={self.layer!r}, channel_wise={self.channel_wise}"

    def _draw(self, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        num_keyed = sum(num_samples for _, num_samples in self.slices)
        if num_keyed != shape[0]:
            raise ValueError(
                f"dropout layer {self.layer} has keys for {num_keyed} samples, not for {shape[0]}; "
                "call set_dropout_keys before each forward pass"
            )
        masks = [
            dropout_mask(key, self.layer, self.mask_shape((num_samples, *shape[1:])), self.p)
            for key, num_samples in self.slices
        ]
        return np.concatenate(masks)


def seed_dropout(network: nn.Sequential) -> nn.Sequential:
    """Replace every dropout layer of a whole network in place by a SeededDropout; return it.

    Call it before the network is split, so that full names are those of the whole. Raises
    SettingsError for layers that draw random numbers by themselves.
    """
    replacements = {}
    for name, module in network.named_modules(remove_duplicate=False):
        if isinstance(module, NOT_SEEDED) or _has_inner_dropout(module):
            raise SettingsError(
                f"layer {name} ({type(module).__name__}) draws random numbers by itself, so it "
                "cannot be cut from the rest; set its dropout to 0 or use nn.Dropout"
            )
        if isinstance(module, ELEMENT_WISE + CHANNEL_WISE):
            if module.p >= 1:
                raise SettingsError(
                    f"layer {name} drops everything: its p is {module.p}, not below 1"
                )
            channel_wise = isinstance(module, CHANNEL_WISE)
            replacement = SeededDropout(module.p, layer=name, channel_wise=channel_wise)
            replacements[name] = replacement.train(module.training)
    for name, replacement in replacements.items():
        network.set_submodule(name, replacement)
    return network


def dropout_layers(network: nn.Module) -> Iterator[SeededDropout]:
    """Find the seeded dropout layers, in the order of their registration."""
    for module in network.modules():
        if isinstance(module, SeededDropout):
            yield module


def set_dropout_keys(network: nn.Module, slices: Iterable[Slice]) -> None:
    """Say whose samples the next batch is made of: (key, number of samples) in batch order.

    A key is the words that name a device's step, such as (seed, device, round, local epoch).
    """
    given = tuple(slices)
    for layer in dropout_layers(network):
        layer.slices = given


def _has_inner_dropout(module: nn.Module) -> bool:
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return cast("float", module.dropout) > 0
    return False
