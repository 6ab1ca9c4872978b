"""What a codec is: how many bytes a tensor takes, how it is encoded, and how far off it comes back.

A codec turns a float32 tensor into *parts*, which are ordinary tensors of a frame. The shapes of
the parts follow from the tensor's shape alone: so a plan prices them before anything is computed,
and a receiver knows to the byte what may come. Whatever parts of these shapes, and within the
ranges that their specs state, come back as finite numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.seeding import Key
from runtime.wire.frames import Tensor, TensorSpec

Floats32 = NDArray[np.float32]
Shape = tuple[int, ...]

LARGEST = 2.0**64
"""What is farther from zero travels as this: no sound number of a training is."""
LEAST_GROUP = 64
"""Values that share two numbers of their group; of fewer those two would be too much."""


@dataclass(frozen=True)
class Layout:
    """A tensor as [outer, group, inner]: the values of a group are scaled together."""

    shape: Shape
    outer: int
    groups: int
    inner: int

    @property
    def size(self) -> int:
        """How many values there are."""
        return self.outer * self.groups * self.inner


@cache
def layout_of_samples(shape: Shape) -> Layout:
    """Group [sample, channel, ...] by channel, and [sample, feature] by sample."""
    whole = prod(shape)
    if len(shape) >= 3 and whole >= LEAST_GROUP * shape[1] > 0:
        return Layout(shape, shape[0], shape[1], prod(shape[2:]))
    return layout_of_weights(shape)


@cache
def layout_of_weights(shape: Shape) -> Layout:
    """Group by the first axis: the output channels of a layer, or samples; else not at all."""
    whole = prod(shape)
    if shape and whole >= LEAST_GROUP * shape[0] > 0:
        return Layout(shape, 1, shape[0], prod(shape[1:]))
    return Layout(shape, 1, 1, whole)


class Codec(Protocol):
    """One way to write a float32 tensor; the same numbers on every machine."""

    @property
    def name(self) -> str:
        """As a job names it."""
        ...

    @property
    def error(self) -> str:
        """How far off a value comes back, and whether it is so on average; for people."""
        ...

    @property
    def relative_error(self) -> float:
        """Most that a value comes back off, as a fraction of its group's range; 1 if no bound."""
        ...

    @property
    def paper(self) -> str:
        """Where it comes from."""
        ...

    @property
    def flop_per_value(self) -> float:
        """What encoding takes, in operations of a device's network, roughly."""
        ...

    def specs(self, layout: Layout) -> tuple[TensorSpec, ...]:
        """Shapes of the parts: the exact bytes that a tensor takes."""
        ...

    def encode(self, x: Floats32, layout: Layout, key: Key) -> list[Tensor]:
        """Write a tensor; what is random in it follows from the address."""
        ...

    def decode(self, parts: Sequence[Tensor], layout: Layout) -> Floats32:
        """Read it back, in its shape."""
        ...


def num_bytes(codec: Codec, layout: Layout) -> int:
    """Bytes that a tensor's parts take, without padding and headers."""
    return sum(spec.num_bytes for spec in codec.specs(layout))


class Fp32:
    """As it is."""

    name = "fp32"
    error = "none"
    relative_error = 0.0
    paper = ""
    flop_per_value = 0.0

    def specs(self, layout: Layout) -> tuple[TensorSpec, ...]:
        """The tensor itself."""
        return (TensorSpec("<f4", layout.shape),)

    def encode(self, x: Floats32, layout: Layout, key: Key) -> list[Tensor]:  # noqa: ARG002
        """The tensor itself."""
        return [x]

    def decode(self, parts: Sequence[Tensor], layout: Layout) -> Floats32:  # noqa: ARG002
        """The tensor itself."""
        return parts[0].astype(np.float32, copy=False)
