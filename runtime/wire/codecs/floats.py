"""Shorter floating point numbers: fp16 with a common scale, and bf16."""

from collections.abc import Sequence

import numpy as np

from runtime.seeding import Key
from runtime.wire.codecs.codec import LARGEST, Floats32, Layout
from runtime.wire.frames import Tensor, TensorSpec

SCALE = TensorSpec("<f4", (1,), largest=LARGEST)


def to_halves(x: Floats32) -> tuple[Tensor, Tensor]:
    """Scale by a power of two so that the largest is at most 1, and halve; the scale, the halves.

    Gradients of a mean over many samples are smaller than fp16's normal numbers without.
    """
    largest = min(float(np.abs(x).max(initial=0.0)), LARGEST)
    exponent = max(int(np.frexp(largest)[1]), -100) if largest else 0
    scale = np.float32(2.0 ** min(exponent, 64))
    return np.array([scale]), np.clip(x * (1 / scale), -1, 1).astype("<f2")


def from_halves(scale: Tensor, halves: Tensor) -> Floats32:
    """Undo `to_halves`."""
    return np.multiply(halves, np.float32(scale[0]), dtype=np.float32)


class Fp16:
    """Half precision, over a power of two that all values of a tensor share."""

    name = "fp16"
    error = "within 1/2048 of a value, and 2^-25 of the largest; rounded to the nearest"
    relative_error = 2.0**-11
    paper = "Micikevicius et al., Mixed Precision Training, ICLR 2018"
    flop_per_value = 6.0

    def specs(self, layout: Layout) -> tuple[TensorSpec, ...]:
        """The scale, and two bytes a value."""
        return SCALE, TensorSpec("<f2", layout.shape)

    def encode(self, x: Floats32, layout: Layout, key: Key) -> list[Tensor]:  # noqa: ARG002
        """Round to the nearest."""
        return list(to_halves(x))

    def decode(self, parts: Sequence[Tensor], layout: Layout) -> Floats32:  # noqa: ARG002
        """Multiply by the scale."""
        return from_halves(parts[0], parts[1])


class Bf16:
    """The upper half of float32: its range, and eight bits of its precision."""

    name = "bf16"
    error = "within 1/256 of a value; rounded to the nearest, ties to even"
    relative_error = 2.0**-8
    paper = "Kalamkar et al., A Study of BFLOAT16 for Deep Learning Training, arXiv 1905.12322"
    flop_per_value = 4.0

    def specs(self, layout: Layout) -> tuple[TensorSpec, ...]:
        """Two bytes a value."""
        return (TensorSpec("<u2", layout.shape, is_bfloat16=True),)

    def encode(self, x: Floats32, layout: Layout, key: Key) -> list[Tensor]:  # noqa: ARG002
        """Round to the nearest."""
        bits = np.ascontiguousarray(np.clip(x, -LARGEST, LARGEST), "<f4").view("<u4")
        return [((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")]

    def decode(self, parts: Sequence[Tensor], layout: Layout) -> Floats32:  # noqa: ARG002
        """Fill the lower half with zeros."""
        return (parts[0].astype("<u4") << 16).view("<f4").astype(np.float32, copy=False)
