"""Dropout layers whose masks come from the step's key instead of torch's random generator."""

import zlib
from collections.abc import Iterable, Iterator
from typing import cast

import numpy as np
import torch
from torch import nn

from runtime.dropout_masks import dropout_mask
from runtime.errors import SettingsError
from runtime.seeding import torch_seed
from runtime.wire.micro_batches import Rows

Slice = tuple[tuple[int, ...], int | Rows]
"""The key of one device's step, and which samples of its mini-batch there are: so many, which are
all, or those of a micro-batch."""

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
        self.batch_axis = 0
        """The axis along which the samples are; several rows of it may be of one sample."""
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
        axis = self.batch_axis
        slices = [(key, _rows(samples)) for key, samples in self.slices]
        num_keyed = sum(len(rows) for _, rows in slices)
        if not num_keyed or shape[axis] % num_keyed:
            raise ValueError(
                f"dropout layer {self.layer} has keys for {num_keyed} samples, "
                f"not for {shape[axis]}; call set_dropout_keys before each forward pass"
            )
        each = shape[axis] // num_keyed
        masks = []
        for key, rows in slices:
            whole = self.mask_shape((*shape[:axis], rows.of * each, *shape[axis + 1 :]))
            mask = dropout_mask(key, self.layer, whole, self.p)
            part = slice(rows.start * each, rows.stop * each)
            masks.append(mask[(slice(None),) * axis + (part,)])
        return np.concatenate(masks, axis=axis)


class SeededGenerator(nn.Module):
    """Sets torch's generator from the step's key, for the operator that comes next.

    Where that has the samples of several devices, the first one's key counts.
    """

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer = layer
        self.slices: tuple[Slice, ...] = ()

    def forward(self) -> None:
        """Set it; without a key, leave it."""
        if self.slices:
            key, _ = self.slices[0]
            address = (*key, zlib.crc32(self.layer.encode()))
            torch.default_generator.manual_seed(torch_seed(address))


def seed_dropout(network: nn.Sequential) -> nn.Sequential:
    """Replace every dropout layer of a whole network in place by a SeededDropout; return it.

    Call it before the network is split, so that full names are those of the whole. Raises
    SettingsError for layers that draw random numbers by themselves, unless the network has
    seen to those too, as one captured as a graph has.
    """
    if not getattr(network, "draws_by_address", False):
        for name, module in network.named_modules(remove_duplicate=False):
            if isinstance(module, NOT_SEEDED) or _has_inner_dropout(module):
                raise SettingsError(
                    f"layer {name} ({type(module).__name__}) draws random numbers by itself, so it "
                    "cannot be cut from the rest; set its dropout to 0 or use nn.Dropout"
                )
        replace_dropout(network)
    return network


def replace_dropout(module: nn.Module) -> None:
    """Replace every dropout layer in place by a SeededDropout of its name."""
    replacements = {}
    for name, layer in module.named_modules(remove_duplicate=False):
        if isinstance(layer, ELEMENT_WISE + CHANNEL_WISE):
            if layer.p >= 1:
                raise SettingsError(
                    f"layer {name} drops everything: its p is {layer.p}, not below 1"
                )
            channel_wise = isinstance(layer, CHANNEL_WISE)
            replacement = SeededDropout(layer.p, layer=name, channel_wise=channel_wise)
            replacements[name] = replacement.train(layer.training)
    for name, replacement in replacements.items():
        module.set_submodule(name, replacement)


def dropout_layers(network: nn.Module) -> Iterator[SeededDropout]:
    """Find the seeded dropout layers, in the order of their registration."""
    for module in network.modules():
        if isinstance(module, SeededDropout):
            yield module


def set_dropout_keys(network: nn.Module, slices: Iterable[Slice]) -> None:
    """Say whose samples the next batch is made of: (key, samples) in batch order.

    A key is the words that name a device's step, such as (seed, device, round, local epoch). A
    micro-batch has its rows of the mask of the whole mini-batch.
    """
    given = tuple(slices)
    for layer in network.modules():
        if isinstance(layer, SeededDropout | SeededGenerator):
            layer.slices = given


def _rows(samples: int | Rows) -> Rows:
    return samples if isinstance(samples, Rows) else Rows.all(samples)


def _has_inner_dropout(module: nn.Module) -> bool:
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return cast("float", module.dropout) > 0
    return False
