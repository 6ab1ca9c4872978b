"""Layers that draw random numbers from the step's key instead of torch's random generator."""

import zlib

import numpy as np
import torch
from torch import nn

from runtime.seeding import dropout_mask, torch_seed
from runtime.seeding.torch_generator import seed_generators
from runtime.wire.micro_batches import Rows

Slice = tuple[tuple[int, ...], int | Rows]
"""The key of one device's step, and which samples of its mini-batch there are: so many, which are
all, or those of a micro-batch."""


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
        return x * torch.from_numpy(self._draw(tuple(x.shape))).to(x)

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
        return masks[0] if len(masks) == 1 else np.concatenate(masks, axis=axis)


class SeededBernoulli(SeededDropout):
    """Ones with a probability, else zeros, as stochastic depth draws them for whole samples."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Fill the shape of `x`, whose numbers do not matter."""
        return super().forward(torch.ones_like(x)) * (1 - self.p)


class SeededDepth(nn.Module):
    """Stochastic depth as torchvision has it: a sample's numbers are dropped all or not at all."""

    def __init__(self, p: float, *, layer: str) -> None:
        super().__init__()
        self.drop = SeededDropout(p, layer=layer, channel_wise=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Samples come first."""
        kept: torch.Tensor = self.drop(x.new_ones(x.shape[0], *(1 for _ in x.shape[1:])))
        return x * kept


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
            seed_generators(torch_seed(address))


def _rows(samples: int | Rows) -> Rows:
    return samples if isinstance(samples, Rows) else Rows.all(samples)


def keep_draws_uncompiled() -> None:
    """Let torch.compile leave these layers as they are: each step draws by another key."""
    for kind in (SeededDropout, SeededGenerator):
        if not hasattr(kind.forward, "_torchdynamo_orig_callable"):
            opaque = torch.compiler.disable(kind.forward)  # type: ignore[no-untyped-call]
            setattr(kind, "forward", opaque)  # noqa: B010 - one function for both
