"""Clusters relaxed to what can be bounded: a set of devices, two waiting times, a link to divide.

A cluster waits for its slowest device several times. All waits but the first are taken as one:
the sum of the slowest is never shorter than the slowest sum. A cluster that waits no longer than
`limit_s[0]` and `limit_s[1]` has to give each of its devices a share of at least

    needed = max over the two waits of  link_s / (limit_s - fixed_s)

and these shares add up to no more than the whole link. Limits are looked at in boxes, [low,
high]: counted as short as `low`, and generous as `high`. So every box costs no more than any
cluster whose waits lie within it, and finer boxes cost nearly as much.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edge_coordinator.planning.latency import PhasesByShare
from edge_coordinator.planning.spectrum import Flags
from profiles.link import IndependentLinks, Medium, Subcarriers
from profiles.units import Counts, Floats

ROUNDING = 1e-9
"""Relative; shares and limits that were met but for rounding count as met."""
FIRST_LEVELS = 14
"""Boxes begin as a grid of so many levels of either wait."""
BEYOND_PLAN = 1.15
"""The highest level but one, relative to a good plan's longest wait."""
LOWEST_LEVEL = 2e-3
"""Of the highest."""
LARGEST_RATIO = 1.4
"""Of the ends of a box that was split off the low end of another."""
SHORTEST_S = 1e-9
"""The lowest level where there is nothing to wait for."""


@dataclass(frozen=True)
class PairedWaits:
    """Seconds that a device makes its cluster wait in a round, [wait, device], by two waits.

    They are `fixed_s + link_s / share`.
    """

    fixed_s: Floats
    link_s: Floats
    medium: Medium
    least_size: int
    """Devices in the smallest cluster."""

    @classmethod
    def of(cls, seconds: PhasesByShare, medium: Medium, *, least_size: int) -> "PairedWaits":
        """Take all waits but the first as one."""
        waits = seconds.waits
        parts_s = np.stack([waits.fixed_s, waits.link_s])[..., :-1] * waits.counts[:, np.newaxis]
        (fixed_s, link_s) = np.stack([parts_s[:, 0], parts_s[:, 1:].sum(axis=1)], axis=1)
        return cls(fixed_s, link_s, medium, least_size)

    @property
    def num_devices(self) -> int:
        """How many devices there are."""
        return int(self.fixed_s.shape[1])

    @property
    def is_divided(self) -> bool:
        """Whether the devices of a cluster have one link together."""
        return not isinstance(self.medium, IndependentLinks)

    @cached_property
    def least_s(self) -> Floats:
        """With the whole link, [wait, device]."""
        least_s: Floats = self.fixed_s + self.link_s
        return least_s

    def needed_shares(self, limits_s: Floats) -> Floats:
        """Shares that devices need within limits, [box, device]; infinite if none is enough."""
        room_s = limits_s[:, :, np.newaxis] - self.fixed_s
        fits = (self.least_s <= limits_s[:, :, np.newaxis] * (1 + ROUNDING)).all(axis=1)
        if not self.is_divided:
            return np.where(fits, 0.0, np.inf)
        link_s = np.broadcast_to(self.link_s, room_s.shape)
        # Where rounding alone leaves no room, no share is asked for: that keeps the bound below.
        needs = (link_s > 0) & (room_s > 0)
        shares = np.divide(link_s, room_s, out=np.zeros_like(room_s), where=needs)
        needed = np.minimum(shares.max(axis=1), 1.0)
        if isinstance(self.medium, Subcarriers):
            number = self.medium.num_subcarriers
            needed = np.maximum(np.ceil(needed * number * (1 - ROUNDING)), 1) / number
        return np.where(fits, needed, np.inf)


@dataclass(frozen=True)
class Boxes:
    """Boxes of limits, [box, wait], and the shares that devices need in them, [box, device]."""

    low_s: Floats
    high_s: Floats
    needed: Floats
    """0 where the whole link is not enough."""
    impossible: Flags

    @classmethod
    def between(cls, waits: PairedWaits, *, low_s: Floats, high_s: Floats) -> "Boxes":
        """Work out what devices need; boxes in which no cluster can lie are left out."""
        if not waits.is_divided:
            low_s, high_s = _snapped(waits, low_s=low_s, high_s=high_s)
        needed = waits.needed_shares(high_s)
        size = waits.least_size
        least_used = np.partition(needed, size - 1, axis=1)[:, :size].sum(axis=1)
        kept = (low_s <= high_s).all(axis=1) & (least_used <= 1 + ROUNDING)
        needed = needed[kept]
        impossible = np.isinf(needed)
        return cls(low_s[kept], high_s[kept], np.where(impossible, 0.0, needed), impossible)

    @classmethod
    def grid(cls, waits: PairedWaits, *, most_s: Floats) -> "Boxes":
        """Cover all limits there are; `most_s` is of either wait what a good plan takes, [wait]."""
        least_s = np.maximum(waits.least_s.min(axis=1), LOWEST_LEVEL * most_s)
        least_s = np.maximum(least_s, SHORTEST_S)
        most_s = np.maximum(BEYOND_PLAN * most_s, least_s)
        inner = np.geomspace(least_s, most_s, FIRST_LEVELS, axis=1)
        # No wait is longer than both with the link divided evenly, even into whole subcarriers.
        even_s = 2 * waits.num_devices * waits.least_s.max(axis=1).sum()
        top_s = np.maximum(inner[:, -1:], even_s)
        levels = np.concatenate([np.zeros((2, 1)), inner, top_s], axis=1)
        low, high = (np.meshgrid(*levels[:, ends], indexing="ij") for ends in (_LOW, _HIGH))
        return cls.between(
            waits,
            low_s=np.stack(low, axis=-1).reshape(-1, 2),
            high_s=np.stack(high, axis=-1).reshape(-1, 2),
        )

    def __len__(self) -> int:
        """How many boxes there are."""
        return len(self.low_s)

    def __getitem__(self, rows: Counts) -> "Boxes":
        """Pick some of them."""
        return Boxes(self.low_s[rows], self.high_s[rows], self.needed[rows], self.impossible[rows])

    def quarters(self, waits: PairedWaits) -> "Boxes":
        """Split each of them in four; of a very large one, the low quarters are small."""
        low_s, high_s = self.low_s, self.high_s
        middle_s = np.minimum(np.sqrt(low_s * high_s), LARGEST_RATIO * low_s)
        middle_s = np.where(low_s > 0, middle_s, high_s / 2)
        upper = np.array(np.meshgrid([0, 1], [0, 1])).reshape(2, -1).T[:, np.newaxis] == 1
        return Boxes.between(
            waits,
            low_s=np.where(upper, middle_s, low_s).reshape(-1, 2),
            high_s=np.where(upper, high_s, middle_s).reshape(-1, 2),
        )

    def joined(self, other: "Boxes") -> "Boxes":
        """Append others."""
        return Boxes(
            *(
                np.concatenate([getattr(self, name), getattr(other, name)])
                for name in ("low_s", "high_s", "needed", "impossible")
            )
        )


_LOW, _HIGH = slice(None, -1), slice(1, None)


def _snapped(waits: PairedWaits, *, low_s: Floats, high_s: Floats) -> tuple[Floats, Floats]:
    """Shrink boxes to the waits of devices that lie in them, where no link is divided."""
    low, high = np.empty_like(low_s), np.empty_like(high_s)
    for wait, values in enumerate(np.sort(waits.least_s, axis=1)):
        padded = np.concatenate([[-np.inf], values, [np.inf]])
        low[:, wait] = padded[np.searchsorted(values, low_s[:, wait], side="left") + 1]
        high[:, wait] = padded[np.searchsorted(values, high_s[:, wait], side="right")]
    return low, high
