"""Prices of devices under which no cluster is cheap: they bound what all clusters take together.

With any prices, clusters of given sizes take together at least

    sum over devices of price  +  sum over clusters of  min over (cluster cost - prices in it)

since every device is in one cluster (weak duality). The minimum is over the boxes of `relaxation`;
within a box, its devices are the cheapest that its link is enough for, and the link has a price
too. Prices that bound well are found by steps along a subgradient, which is smoothed over all
boxes that are nearly the lowest; then the boxes that hold the bound down are split. The bounds of
all stages hold; the last is usually the best.
"""

from dataclasses import dataclass, field

import numpy as np

from edge_coordinator.planning.bound.link_price import by_link_price, cheapest
from edge_coordinator.planning.bound.relaxation import Boxes, PairedWaits
from profiles.units import Counts, Floats

NUM_STAGES = 2
STEPS_OF_STAGE = 40
BOXES_OF_STAGE = 300
"""The prices are moved against the lowest boxes only."""
SPLITS_OF_STAGE = 4
BOXES_OF_SPLIT = 50
WARMEST = 0.05
"""Of a cluster's mean seconds: how far above the lowest a box still counts in the first step."""
COOLING = 0.95
LEAST_STEP = 0.002
"""Of the whole; by this much a step aims higher at least."""
TANGENTS = 6


@dataclass(frozen=True)
class PlannedWaits:
    """What a good plan's clusters wait; the prices begin with it and aim for it."""

    members: Counts
    """[cluster, position], -1 for none."""
    cluster_s: Floats
    """Both waits together, [cluster]."""
    most_s: Floats
    """The longest of each wait, [wait]."""


def waits_bound_s(waits: PairedWaits, planned: PlannedWaits) -> float:
    """Seconds that all clusters of the plan's sizes wait together at least."""
    sizes, counts = np.unique((planned.members >= 0).sum(axis=-1), return_counts=True)
    boxes = Boxes.grid(waits, most_s=planned.most_s)
    prices = first_prices(waits, planned)
    steps = _Steps(sizes, counts, target_s=float(planned.cluster_s.sum()))
    bound_s = -np.inf
    for _ in range(NUM_STAGES):
        prices = steps.improve(boxes, prices, is_divided=waits.is_divided)
        boxes, lowest_s = _refined(waits, boxes, prices, sizes=sizes)
        bound_s = max(bound_s, float(prices.sum() + counts @ lowest_s))
    return bound_s


def _refined(
    waits: PairedWaits, boxes: Boxes, prices: Floats, *, sizes: Counts
) -> tuple[Boxes, Floats]:
    """Split the lowest boxes several times; give all, the lowest first, and the lowest, [size]."""
    values_s = _all_lowest_s(waits, boxes, prices, sizes=sizes)
    for _ in range(SPLITS_OF_STAGE):
        order = _lowest_first(values_s)
        quarters = boxes[order[:BOXES_OF_SPLIT]].quarters(waits)
        boxes = boxes[order[BOXES_OF_SPLIT:]].joined(quarters)
        new_s = _all_lowest_s(waits, quarters, prices, sizes=sizes)
        values_s = np.concatenate([values_s[:, order[BOXES_OF_SPLIT:]], new_s], axis=1)
    return boxes[_lowest_first(values_s)], values_s.min(axis=1)


def _lowest_first(values_s: Floats) -> Counts:
    """Order boxes by how far they are above the lowest of any size; values are [size, box]."""
    above_s = (values_s - values_s.min(axis=1, keepdims=True)).min(axis=0)
    order: Counts = above_s.argsort(kind="stable")
    return order


def _all_lowest_s(waits: PairedWaits, boxes: Boxes, prices: Floats, *, sizes: Counts) -> Floats:
    """Bound the cost less the prices of any cluster, [size, box]."""
    return np.stack([_lowest_s(waits, boxes, prices, size=size) for size in sizes.tolist()])


def first_prices(waits: PairedWaits, planned: PlannedWaits) -> Floats:
    """Let each planned cluster's devices pay for what it waits, [device].

    They pay for the link by what they need of it, and alike for the rest. What the link is worth
    is how much sooner they would finish with more of it.
    """
    prices = np.zeros(waits.num_devices)
    fixed_s, link_s = waits.fixed_s.sum(axis=0), waits.link_s.sum(axis=0)
    for row, cluster_s in zip(planned.members, planned.cluster_s, strict=True):
        cluster = row[row >= 0]
        prices[cluster] = cluster_s / len(cluster)
        if waits.is_divided and link_s[cluster].all():
            room_s = np.maximum(cluster_s - fixed_s[cluster], 1e-3 * cluster_s)
            shares = link_s[cluster] / room_s
            shares /= shares.sum()
            link_price_s = min(cluster_s, 1 / (shares / room_s).sum())
            prices[cluster] += link_price_s * (shares - 1 / len(cluster))
    return prices


@dataclass
class _Steps:
    """Steps of the prices along the subgradient, each more sharply focused than the last."""

    sizes: Counts
    counts: Counts
    """How many clusters have each of the sizes, [size]."""
    target_s: float
    warmth_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.warmth_s = WARMEST * self.target_s / float(self.counts.sum())

    def improve(self, boxes: Boxes, prices: Floats, *, is_divided: bool) -> Floats:
        """Give the best of the prices that a stage's steps come by."""
        boxes = boxes[np.arange(min(len(boxes), BOXES_OF_STAGE))]
        links = {int(size): _LinkPrices(boxes, is_divided=is_divided) for size in self.sizes}
        best, best_s = prices, -np.inf
        for _ in range(STEPS_OF_STAGE):
            bound_s, slope = float(prices.sum()), np.ones_like(prices)
            for size, count in zip(self.sizes.tolist(), self.counts.tolist(), strict=True):
                values_s, chosen = links[size].chosen(boxes, prices, size=size)
                bound_s += count * float(values_s.min())
                weights = np.exp((values_s.min() - values_s) / self.warmth_s)
                weights *= count / weights.sum()
                np.subtract.at(slope, chosen.ravel(), np.repeat(weights, size))
            if bound_s > best_s:
                best, best_s = prices, bound_s
            ahead_s = max(self.target_s - bound_s, LEAST_STEP * self.target_s)
            prices = prices + ahead_s / max(float(slope @ slope), 1e-9) * slope
            self.warmth_s *= COOLING
        return best


class _LinkPrices:
    """The price of the link in each box, moved until its devices need the link and no more.

    Here a box costs as much as it is generous: prices that are moved against what it costs at
    least would be moved away from boxes that only look cheap because they are large.
    """

    def __init__(self, boxes: Boxes, *, is_divided: bool) -> None:
        self._cost_s = boxes.high_s.sum(axis=1)
        whole_s = self._cost_s if is_divided else np.zeros(len(boxes))
        self._price_s, self._step_s = 0.3 * whole_s, 0.1 * whole_s
        self._direction = np.zeros(len(boxes))

    def chosen(self, boxes: Boxes, prices: Floats, *, size: int) -> tuple[Floats, Counts]:
        """Give the cost less the prices, [box], of the cheapest devices, [box, position]."""
        sums_s, used, devices = cheapest(boxes, prices, link_price_s=self._price_s, size=size)
        values_s = self._cost_s + sums_s - self._price_s
        direction = np.sign(used - 1)
        self._step_s = self._step_s * np.where(direction == self._direction, 1.3, 0.6)
        self._direction = direction
        self._price_s = np.maximum(self._price_s + direction * self._step_s, 0.0)
        return values_s, devices


def _lowest_s(waits: PairedWaits, boxes: Boxes, prices: Floats, *, size: int) -> Floats:
    """Bound the cost less the prices of any cluster of a size, [box]."""
    if waits.is_divided:
        lowest_s, _ = by_link_price(boxes, prices, size=size, tangents=TANGENTS)
        return lowest_s
    sums_s, _, _ = cheapest(boxes, prices, link_price_s=np.zeros(len(boxes)), size=size)
    whole_s: Floats = boxes.low_s.sum(axis=1)
    return np.add(whole_s, sums_s)
