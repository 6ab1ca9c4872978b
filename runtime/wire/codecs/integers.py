"""int8 and int4: evenly spaced levels between the least and the largest of each group.

A value goes up or down to one of its two neighbours at random, in proportion to how near it is:
so that what comes back is right on average, within 1/2048 of the distance of two levels. Devices
encode after every forward pass: so the passes over all values are few, and in place.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.seeding import Key
from runtime.wire.codecs.codec import LARGEST, Floats32, Layout
from runtime.wire.codecs.dither import add_dither
from runtime.wire.frames import Tensor, TensorSpec

_MOST = LARGEST / 2
"""The difference of two such is within what travels."""
_LEAST_STEP = np.float32(2.0**-120)
"""A group whose levels are nearer to each other comes back as something between its ends."""


class Integers:
    """So many bits a value, two float32 a group."""

    paper = "Alistarh et al., QSGD, NeurIPS 2017; levels by channel as Jacob et al., CVPR 2018"

    def __init__(self, bits: int) -> None:
        """`bits` is 8 or 4."""
        self._bits = bits
        self._levels = 2**bits - 1
        self._part = np.float32(1 / self._levels)
        self.name = f"int{bits}"
        self.error = f"within 1/{self._levels} of its group's range; right on average"
        self.relative_error = 1 / self._levels
        self.flop_per_value = 20.0

    def specs(self, layout: Layout) -> tuple[TensorSpec, ...]:
        """The least of each group, the distance of its levels, and the level of each value."""
        group = TensorSpec("<f4", (layout.groups,), largest=LARGEST)
        return group, group, TensorSpec("|u1", (-(-layout.size * self._bits // 8),))

    def encode(self, x: Floats32, layout: Layout, key: Key) -> list[Tensor]:
        """Round each value to a level next to it."""
        values = x.reshape(layout.outer, layout.groups, layout.inner)
        if layout.size == 0:
            nothing = np.zeros(layout.groups, np.float32)
            return [nothing, nothing, np.zeros(0, np.uint8)]
        # In two steps, of which the first goes over whole rows: faster than over both axes at once.
        low = np.minimum.reduce(np.minimum.reduce(values, axis=0), axis=1)
        high = np.maximum.reduce(np.maximum.reduce(values, axis=0), axis=1)
        lows, highs = low.tolist(), high.tolist()
        if min(lows) < -_MOST or max(highs) > _MOST:
            return self.encode(np.clip(x, -_MOST, _MOST), layout, key)
        step = (high - low) * self._part
        scale = (1 / np.maximum(step, _LEAST_STEP))[:, np.newaxis]
        if any(lows):
            scaled = values - low[:, np.newaxis]
            scaled *= scale
        else:  # As after a ReLU.
            scaled = values * scale
        flat = scaled.reshape(-1)
        add_dither(flat, key)
        return [low, step, self._packed(flat.astype(np.uint8))]

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
