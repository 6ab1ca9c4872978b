"""The cheapest sets of devices that fit into boxes of waits, some of them one by one.

The price of the link bounds what any set takes of a box. It is below what whole devices take, as a
knapsack's relaxation is; so of the devices that are cheapest at that price all sets are tried, and
what has any other device in it costs no less than the price of the link says of it.
"""

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np

from edge_coordinator.planning.bound.relaxation import ROUNDING, Boxes
from profiles.units import Counts, Floats

NUM_TRIED = 12
"""Devices of which all sets are tried."""
BOXES_TRIED = 60
"""The lowest; the others are far enough above them."""
TANGENTS = 4
NEVER_S = 1e12
"""The cost of a device in a box that it does not fit into."""
NEAR = 0.1
"""Of a cluster's seconds: sets that are so far above the lowest are worth to be known."""


@dataclass(frozen=True)
class LowestSets:
    """What the cheapest cluster of a box costs less its devices' prices, at the least."""

    values_s: Floats
    """[box]."""
    devices: Counts
    """Of the cheapest set that was tried, [box, position]; -1 where none was."""

    def of(self, rows: Counts) -> "LowestSets":
        """Pick some boxes."""
        return LowestSets(self.values_s[rows], self.devices[rows])

    def joined(self, other: "LowestSets") -> "LowestSets":
        """Append others."""
        return LowestSets(
            np.concatenate([self.values_s, other.values_s]),
            np.concatenate([self.devices, other.devices]),
        )

    def near(self, cluster_s: float) -> Counts:
        """List the sets that are not far above the lowest, each in order, [cluster, position]."""
        near = self.values_s <= self.values_s.min() + NEAR * cluster_s
        return np.sort(self.devices[near & (self.devices[:, 0] >= 0)], axis=-1)


def lowest_sets(boxes: Boxes, prices: Floats, *, size: int) -> LowestSets:
    """Bound clusters of a size in each box."""
    values_s, link_price_s = _by_link_price(boxes, prices, size=size)
    devices = np.full((len(boxes), size), -1)
    tried = values_s.argsort(kind="stable")[:BOXES_TRIED]
    if len(tried):
        tried_s, devices[tried] = _tried(
            boxes[tried], prices, link_price_s=link_price_s[tried], size=size
        )
        values_s[tried] = np.maximum(values_s[tried], tried_s)
    return LowestSets(values_s, devices)


def _tried(
    boxes: Boxes, prices: Floats, *, link_price_s: Floats, size: int
) -> tuple[Floats, Counts]:
    """Try all sets of the devices that are cheapest with the link's price, and bound the others."""
    costs_s = _costs_s(boxes, prices, link_price_s=link_price_s)
    order = costs_s.argsort(axis=-1, kind="stable")
    near, sets = order[:, :NUM_TRIED], _sets(min(NUM_TRIED, len(prices)), size)
    others_s = np.full(len(boxes), np.inf)
    if len(prices) > NUM_TRIED:  # The cheapest set with the cheapest of the others in it.
        cheapest = np.append(np.arange(size - 1), NUM_TRIED)
        others_s = np.take_along_axis(costs_s, order[:, cheapest], axis=-1).sum(axis=-1)
        others_s -= link_price_s
    fits = ~np.take_along_axis(boxes.impossible, near, axis=-1)
    paid_s = np.where(fits, prices[near], -NEVER_S) @ sets
    used = np.take_along_axis(boxes.needed, near, axis=-1) @ sets
    paid_s[used > 1 + ROUNDING] = -NEVER_S
    best = paid_s.argmax(axis=-1)
    best_s = -np.take_along_axis(paid_s, best[:, np.newaxis], axis=-1)[:, 0]
    members = sets.T[best].nonzero()[1].reshape(-1, size)
    values_s: Floats = boxes.low_s.sum(axis=-1) + np.minimum(best_s, others_s)
    return values_s, np.take_along_axis(near, members, axis=-1)


@cache
def _sets(num_devices: int, size: int) -> Floats:
    """All sets of so many of these devices, 1 for those that are in it, [device, set]."""
    members = np.array(list(combinations(range(num_devices), size)))
    sets = np.zeros((num_devices, len(members)))
    sets[members.T, np.arange(len(members))] = 1
    return sets


def _by_link_price(boxes: Boxes, prices: Floats, *, size: int) -> tuple[Floats, Floats]:
    """Bound clusters of a size by a price of the link, both [box].

    The bound is concave in the price and consists of straight lines: the next price to try is
    where the tangents of the two nearest cross. Every price gives a bound.
    """

    def at(link_price_s: Floats) -> tuple[Floats, Floats]:
        costs_s = _costs_s(boxes, prices, link_price_s=link_price_s)
        devices = np.argpartition(costs_s, size - 1, axis=-1)[:, :size]
        sums_s = np.take_along_axis(costs_s, devices, axis=-1).sum(axis=-1)
        used = np.take_along_axis(boxes.needed, devices, axis=-1).sum(axis=-1)
        return sums_s - link_price_s, used - 1

    low, high = np.zeros(len(boxes)), boxes.high_s.sum(axis=1)
    (low_s, rising), (high_s, falling) = at(low), at(high)
    best_s, best = np.maximum(low_s, high_s), np.where(low_s > high_s, low, high)
    for _ in range(TANGENTS):
        crosses = (rising > 0) & (falling < 0)
        height_s = high_s - low_s + rising * low - falling * high
        middle = np.divide(height_s, rising - falling, out=low.copy(), where=crosses)
        middle = np.clip(middle, low, high)
        middle_s, slope = at(middle)
        best = np.where(middle_s > best_s, middle, best)
        best_s = np.maximum(best_s, middle_s)
        is_low = slope > 0
        low, low_s, rising = np.where(is_low, (middle, middle_s, slope), (low, low_s, rising))
        high, high_s, falling = np.where(is_low, (high, high_s, falling), (middle, middle_s, slope))
    return boxes.low_s.sum(axis=1) + best_s, best


def _costs_s(boxes: Boxes, prices: Floats, *, link_price_s: Floats) -> Floats:
    """What each device costs of a link at this price, less its own, [box, device]."""
    costs_s: Floats = link_price_s[:, np.newaxis] * boxes.needed - prices
    costs_s[boxes.impossible] = NEVER_S
    return costs_s
