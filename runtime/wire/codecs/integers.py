"""int8 and int4: evenly spaced levels between the least and the largest of each group.

A value goes up or down to one of its two neighbours at random, in proportion to how near it is:
so that what comes back is right on average. Where a value is between two levels is taken to the
nearest of 256 places, so an average is right within 1/512 of the distance of two levels.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.wire.codecs.codec import LARGEST, Floats32, Layout
from runtime.wire.frames import Tensor, TensorSpec

_FRACTION = 8
"""Bits below a level that decide which way to round: with eight of the level they are sixteen."""
_MOST = LARGEST / 2
"""The difference of two such is within what travels."""
_LEAST_SPAN = 2.0**-100
"""A group whose values differ by less comes back as its least."""


class Integers:
    """So many bits a value, two float32 a group."""

    paper = "Alistarh et al., QSGD, NeurIPS 2017; levels by channel as Jacob et al., CVPR 2018"

    def __init__(self, bits: int) -> None:
        """`bits` is 8 or 4."""
        self._bits = bits
        self._levels = 2**bits - 1
        self.name = f"int{bits}"
        self.error = f"within 1/{self._levels} of its group's range; right on average"
        self.relative_error = 1 / self._levels
        self.flop_per_value = 24.0

    def specs(self, layout: Layout) -> tuple[TensorSpec, ...]:
        """The least of each group, the distance of its levels, and the level of each value."""
        group = TensorSpec("<f4", (layout.groups,), largest=LARGEST)
        return group, group, TensorSpec("|u1", (-(-layout.size * self._bits // 8),))

    def encode(self, x: Floats32, layout: Layout, generator: np.random.Generator) -> list[Tensor]:
        """Round each value to a level next to it."""
        values = x.reshape(layout.outer, layout.groups, layout.inner)
        if layout.size == 0:
            nothing = np.zeros(layout.groups, np.float32)
            return [nothing, nothing, np.zeros(0, np.uint8)]
        low, high = (_of_groups(each, values) for each in (np.minimum, np.maximum))
        if max(-low.min(), high.max()) > _MOST:
            return self.encode(np.clip(x, -_MOST, _MOST), layout, generator)
        span = np.subtract(high, low, dtype=np.float32)
        top = np.float32(self._levels << _FRACTION)
        scale = np.divide(top, span, out=np.zeros_like(span), where=span > _LEAST_SPAN)
        scaled = np.subtract(values, low[:, np.newaxis], dtype=np.float32)
        scaled *= scale[:, np.newaxis]
        steps = np.rint(scaled, out=scaled).astype("<u2").reshape(-1)
        steps += _random_bytes(generator, layout.size)
        steps >>= _FRACTION
        levels = steps.astype(np.uint8)
        return [low, span / np.float32(self._levels), self._packed(levels)]

    def decode(self, parts: Sequence[Tensor], layout: Layout) -> Floats32:
        """Multiply by the distance of the levels, and add the least."""
        low, step, packed = parts
        levels = self._unpacked(packed, layout.size).astype(np.float32)
        values = levels.reshape(layout.outer, layout.groups, layout.inner)
        values *= step.astype(np.float32)[:, np.newaxis]
        values += low.astype(np.float32)[:, np.newaxis]
        return values.reshape(layout.shape)

    def _packed(self, levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._bits == 8:
            return levels
        even = np.zeros(-(-len(levels) // 2) * 2, np.uint8)
        even[: len(levels)] = levels
        return np.bitwise_or(even[0::2], np.left_shift(even[1::2], 4))

    def _unpacked(self, packed: Tensor, size: int) -> Tensor:
        if self._bits == 8:
            return packed
        pairs = packed.astype(np.uint8, copy=False)
        halves = [np.bitwise_and(pairs, 15), np.right_shift(pairs, 4)]
        return np.stack(halves, axis=1).reshape(-1)[:size]


def _of_groups(least_or_largest: np.ufunc, values: Floats32) -> Floats32:
    outer, groups, inner = values.shape
    by_place = least_or_largest.reduce(values.reshape(outer, groups * inner), axis=0)
    by_group: Floats32 = least_or_largest.reduce(by_place.reshape(groups, inner), axis=1)
    return by_group


def _random_bytes(generator: np.random.Generator, size: int) -> NDArray[np.uint8]:
    words = generator.bit_generator.random_raw(-(-size // 8))
    return words.astype("<u8", copy=False).view(np.uint8)[:size]
