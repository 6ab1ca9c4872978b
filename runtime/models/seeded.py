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
        self.batch_axis: int | None = 0
        """The axis along which the samples are; several rows of it may be of one sample. None: what
        it drops is the same for all samples, and the first one's mask counts."""
        self.may_be_shared = False
        """Whether that axis is a guess, as in a module that is only tried: if it is no multiple of
        the samples, then all of them share what is dropped."""
        self.given_mask: torch.Tensor | None = None
        """The masks of all samples (an input of an exported graph); None draws from the keys."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply by the mask in training; return `x` itself in evaluation."""
        if not self.training or self.p == 0:
            return x
        if self.given_mask is not None:
            return x * _placed(self.given_mask, self.batch_axis, x.dim())
        shape = tuple(x.shape)
        axis = self._axis(shape, self._num_samples)
        return x * _placed(torch.from_numpy(self._drawn(shape)), axis, x.dim()).to(x)

    def mask_shape(self, shape: tuple[int, ...], num_samples: int) -> tuple[int, ...]:
        """Return the shape of one sample's mask, where so many samples are of this shape.

        ValueError if they cannot be.
        """
        masked = (*shape[:2], *(1 for _ in shape[2:])) if self.channel_wise else shape
        axis = self._axis(shape, num_samples)
        if not num_samples or (axis is not None and shape[axis] % num_samples):
            raise ValueError(
                f"dropout layer {self.layer} has keys for {num_samples} samples, "
                f"not for {shape[axis or 0]}; call set_dropout_keys before each forward pass"
            )
        if axis is None:
            return masked
        rows = shape[axis] // num_samples
        return (*masked[:axis], *([rows] if rows > 1 else []), *masked[axis + 1 :])

    def extra_repr(self) -> str:
        """Say what the layer's repr shows beside its type."""
        return f"p={self.p}, layer={self.layer!r}, channel_wise={self.channel_wise}"

    def _drawn(self, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """Draw the mask of each sample, [sample, ...]; of what all share the first one's alone."""
        slices = [(key, _rows(samples)) for key, samples in self.slices]
        own = self.mask_shape(shape, self._num_samples)
        if self._axis(shape, self._num_samples) is None:
            key, rows = slices[0]
            return dropout_mask(key, self.layer, (rows.start + 1, *own), self.p)[rows.start :]
        masks = [
            dropout_mask(key, self.layer, (rows.of, *own), self.p)[rows.start : rows.stop]
            for key, rows in slices
        ]
        return masks[0] if len(masks) == 1 else np.concatenate(masks)

    @property
    def _num_samples(self) -> int:
        return sum(len(_rows(samples)) for _, samples in self.slices)

    def _axis(self, shape: tuple[int, ...], num_samples: int) -> int | None:
        axis = self.batch_axis
        if axis is None or not self.may_be_shared or not num_samples:
            return axis
        return None if shape[axis] % num_samples else axis


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


def _placed(masks: torch.Tensor, axis: int | None, num_axes: int) -> torch.Tensor:
    """Bring the masks of all samples to where these are in a tensor of so many axes."""
    if axis is None:
        return masks[0]
    placed = masks.movedim(0, axis) if axis else masks
    return placed if placed.dim() == num_axes else placed.flatten(axis, axis + 1)


def _rows(samples: int | Rows) -> Rows:
    return samples if isinstance(samples, Rows) else Rows.all(samples)


def keep_draws_uncompiled() -> None:
    """Let torch.compile leave these layers as they are: each step draws by another key."""
    for kind in (SeededDropout, SeededGenerator):
        if not hasattr(kind.forward, "_torchdynamo_orig_callable"):
            opaque = torch.compiler.disable(kind.forward)  # type: ignore[no-untyped-call]
            setattr(kind, "forward", opaque)  # noqa: B010 - one function for both
