"""The cheapest sets of devices that fit into boxes of waits, some of them one by one.

The price of the link bounds what any set takes of a box. It is below what whole devices take, as a
knapsack's relaxation is; so of the devices that are cheapest at that price all sets are tried, and
what has any other device in it costs no less than the price of the link says of it.
"""

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np

from edge_coordinator.planning.bound.link_price import NEVER_S, by_link_price, costs_of
from edge_coordinator.planning.bound.relaxation import ROUNDING, Boxes
from profiles.units import Counts, Floats

NUM_TRIED = 12
"""Devices of which all sets are tried."""
BOXES_TRIED = 60
"""The lowest; the others are far enough above them."""
TANGENTS = 4
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
    values_s, link_price_s = by_link_price(boxes, prices, size=size, tangents=TANGENTS)
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
    costs_s = costs_of(boxes, prices, link_price_s=link_price_s)
    order = costs_s.argsort(axis=-1, kind="stable")
    near, sets = order[:, :NUM_TRIED], all_sets(min(NUM_TRIED, len(prices)), size)
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
def all_sets(num_devices: int, size: int) -> Floats:
    """All sets of so many of these devices, 1 for those that are in it, [device, set]."""
    members = np.array(list(combinations(range(num_devices), size)))
    sets = np.zeros((num_devices, len(members)))
    sets[members.T, np.arange(len(members))] = 1
    return sets
