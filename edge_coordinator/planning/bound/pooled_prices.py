"""Prices of devices for few devices that divide a link: from clusters that there could be.

The prices of `device_prices` move against boxes, which are cheaper than any cluster in them. Here
they move against a pool of clusters and what these really wait: first the planned ones and all that
differ from one of them in a device, then those that are cheapest at the prices so far. The bound
comes from boxes all the same, at the last prices; and there from every set of the devices that are
the cheapest in a box, as many as `enumeration` looks at, not from their link's price alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_coordinator.planning.bound.enumeration import LowestSets, lowest_sets
from edge_coordinator.planning.bound.relaxation import Boxes, PairedWaits
from profiles.units import Counts, Floats

MOST_DEVICES = 40
MOST_OF_CLUSTER = 6
ROUNDS = 5
STEPS_OF_ROUND = 50
BOXES_OF_ROUND = 150
"""The lowest ones, but in the last round, which looks at all."""
SPLITS_OF_ROUND = 3
SPLITS_OF_LAST = 12
BOXES_OF_SPLIT = 25
WARMEST = 0.02
"""Of a cluster's mean seconds: how far above the cheapest a cluster still counts at first."""
COOLING = 0.985
LEAST_STEP = 0.002
"""Of the whole; by this much a step aims higher at least."""

WaitedBy = Callable[[Counts], Floats]
"""What clusters wait, [cluster], with the link divided among their devices."""


@dataclass(frozen=True)
class Pool:
    """Clusters of one size, [cluster, device], what each waits, and how many a plan has."""

    has: Floats
    """1 for devices that are in a cluster, 0 for others."""
    waits_s: Floats
    count: int

    @classmethod
    def of(cls, members: Counts, waited_s: WaitedBy, *, num_devices: int, count: int) -> "Pool":
        """Take clusters, [cluster, position], each once."""
        members = np.unique(members, axis=0)
        has = np.zeros((len(members), num_devices))
        np.put_along_axis(has, members, 1.0, axis=-1)
        return cls(has, waited_s(members), count)

    def with_more(self, members: Counts, waited_s: WaitedBy) -> "Pool":
        """Add clusters, if there are any."""
        if not len(members):
            return self
        more = Pool.of(members, waited_s, num_devices=self.has.shape[1], count=self.count)
        return Pool(
            np.concatenate([self.has, more.has]),
            np.concatenate([self.waits_s, more.waits_s]),
            self.count,
        )


def pooled_bound_s(
    waits: PairedWaits,
    members: Counts,
    waited_s: WaitedBy,
    *,
    boxes: Boxes,
    prices: Floats,
) -> float:
    """Seconds that all clusters of the plan's sizes wait together at least.

    `boxes` cover all limits, `prices` are to begin with, [device]; `members` are the plan's.
    """
    pools, target_s = first_pools(members, waited_s)
    warmth_s = WARMEST * target_s / len(members)
    for round_ in range(ROUNDS):
        prices, warmth_s = moved(pools, prices, target_s=target_s, warmth_s=warmth_s)
        if round_ == ROUNDS - 1:
            break
        boxes, sets = _split(
            waits, boxes, prices, list(pools), most=BOXES_OF_ROUND, times=SPLITS_OF_ROUND
        )
        pools = {
            size: pool.with_more(sets[size].near(target_s / len(members)), waited_s)
            for size, pool in pools.items()
        }
    _, sets = _split(waits, boxes, prices, list(pools), most=len(boxes), times=SPLITS_OF_LAST)
    lowest_s = sum(pool.count * float(sets[size].values_s.min()) for size, pool in pools.items())
    return float(prices.sum()) + lowest_s


def first_pools(members: Counts, waited_s: WaitedBy) -> tuple[dict[int, Pool], float]:
    """Take a plan's clusters and all that differ from one of them in a device, by size.

    And what those of the plan wait together.
    """
    num_devices, sizes = int(members.max()) + 1, (members >= 0).sum(axis=-1)
    pools, whole_s = {}, 0.0
    for size in np.unique(sizes).tolist():
        rows = np.sort(members[sizes == size], axis=-1)[:, -size:]
        near = np.repeat(rows[:, np.newaxis], size * num_devices, axis=1)
        places = np.repeat(np.arange(size), num_devices)
        near[:, np.arange(len(places)), places] = np.tile(np.arange(num_devices), size)
        near = np.sort(near.reshape(-1, size), axis=-1)
        near = near[(np.diff(near, axis=-1) > 0).all(axis=-1)]
        pools[size] = Pool.of(near, waited_s, num_devices=num_devices, count=len(rows))
        whole_s += float(waited_s(rows).sum())
    return pools, whole_s


def moved(
    pools: dict[int, Pool], prices: Floats, *, target_s: float, warmth_s: float
) -> tuple[Floats, float]:
    """Give the best of the prices that steps against the pools come by, and how warm the last is.

    The subgradient is smoothed over all clusters that are nearly the cheapest.
    """
    best, best_s = prices, -np.inf
    for _ in range(STEPS_OF_ROUND):
        bound_s, slope = float(prices.sum()), np.ones_like(prices)
        for pool in pools.values():
            values_s = pool.waits_s - pool.has @ prices
            lowest_s = values_s.min()
            bound_s += pool.count * float(lowest_s)
            weights = np.exp((lowest_s - values_s) / warmth_s)
            slope -= (pool.count / weights.sum()) * (weights @ pool.has)
        if bound_s > best_s:
            best, best_s = prices, bound_s
        ahead_s = max(target_s - bound_s, LEAST_STEP * target_s)
        prices = prices + ahead_s / max(float(slope @ slope), 1e-9) * slope
        warmth_s *= COOLING
    return best, warmth_s


def _split(
    waits: PairedWaits, boxes: Boxes, prices: Floats, sizes: list[int], *, most: int, times: int
) -> tuple[Boxes, dict[int, LowestSets]]:
    """Look at the first boxes and split the lowest several times; give all, the lowest first.

    And the lowest sets of devices in those that were looked at, by size.
    """
    most = min(most, len(boxes))
    seen, rest = boxes[np.arange(most)], boxes[np.arange(most, len(boxes))]
    sets = {size: lowest_sets(seen, prices, size=size) for size in sizes}
    for _ in range(times):
        order = _lowest_first(sets)
        chosen, kept = order[:BOXES_OF_SPLIT], order[BOXES_OF_SPLIT:]
        quarters = seen[chosen].quarters(waits)
        seen = seen[kept].joined(quarters)
        sets = {
            size: each.of(kept).joined(lowest_sets(quarters, prices, size=size))
            for size, each in sets.items()
        }
    order = _lowest_first(sets)
    return seen[order].joined(rest), {size: each.of(order) for size, each in sets.items()}


def _lowest_first(sets: dict[int, LowestSets]) -> Counts:
    """Order boxes by how far they are above the lowest of any size."""
    above_s = np.min([each.values_s - each.values_s.min() for each in sets.values()], axis=0)
    order: Counts = above_s.argsort(kind="stable")
    return order
