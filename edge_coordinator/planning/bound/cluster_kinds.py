"""The cheapest clusters of one kind, by levels of the seconds that they take.

Within a level a cluster has to be worth enough at every price of the link (`division/levels.py`).
One such condition is relaxed at a price of its own, which parts the devices from each other; in the
lowest levels all sets of the devices that are then the cheapest are tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_coordinator.planning.bound.enumeration import NUM_TRIED, all_sets
from edge_coordinator.planning.bound.link_price import by_price
from edge_coordinator.planning.division.device_turns import DeviceTurns
from edge_coordinator.planning.division.levels import NEVER, Levels, levels_of
from edge_coordinator.planning.division.limits import ROUNDING, SampleLimits
from profiles.link import Medium
from profiles.units import Counts, Floats

NUM_LEVELS = 24
AROUND_PLAN = np.array([0.6, 1.3])
"""Levels are close between these, relative to a plan's shortest and longest turn."""
NUM_BEYOND = 6
PRICES = np.concatenate([[0.0, 0.15], np.geomspace(0.4, 8.0, 18)])
"""Of the whole link, in mini-batches of a cluster's devices."""
TANGENTS = 5
LEVELS_TRIED = 8
"""The lowest; the others are far enough above them."""


@dataclass(frozen=True)
class ClusterKind:
    """Clusters of one kind: of mixed cuts, or of one."""

    devices: Counts
    """Who may be in them."""
    partings: list[DeviceTurns]
    """Each may take its turn in another number of micro-batches."""
    samples: SampleLimits | None
    medium: Medium
    width: int
    levels: Levels

    @classmethod
    def of(
        cls, partings: list[DeviceTurns], samples: SampleLimits | None, medium: Medium, *,
        devices: Counts, width: int, planned_s: Floats,
    ) -> "ClusterKind":  # fmt: skip
        """Look devices up up to where any of their clusters is done."""
        partings = [turns.of_devices(devices) for turns in partings]
        samples = samples and samples.of_devices(devices)
        each_s = [
            levels_of(turns, samples=samples, medium=medium, width=width)[[0, -1]]
            for turns in partings
        ]
        least_s, done_s = np.min(each_s, axis=0)
        low_s, high_s = np.clip(AROUND_PLAN * planned_s, least_s * 1.01, done_s)
        times_s = np.concatenate(
            [
                np.geomspace(least_s, low_s, NUM_BEYOND)[:-1],
                np.geomspace(low_s, high_s * (1 + ROUNDING), NUM_LEVELS),
                np.geomspace(high_s, max(done_s, high_s) * 1.01, NUM_BEYOND)[1:],
            ]
        )
        levels = _levels_of_best(partings, samples, medium, times_s, width=width)
        return cls(devices, partings, samples, medium, width, levels)

    @property
    def low_s(self) -> Floats:
        """What clusters of each level take at least: they take longer than the one before it."""
        return np.concatenate([[0.0], self.levels.levels_s[:-1]])

    def lowest(self, prices: Floats, *, size: int) -> "LowestClusters":
        """Bound clusters of a size, by level."""
        lowest = _lowest(self.levels, self.low_s, prices[self.devices], size=size)
        found = np.where(lowest.devices < 0, -1, self.devices[lowest.devices])
        return LowestClusters(lowest.beyond_s, found)

    def turns_s(self, clusters: Counts) -> Floats:
        """Seconds that clusters need, [cluster]; infinite for one with other devices in it."""
        places = np.full(int(max(clusters.max(), self.devices.max())) + 2, -2)
        places[self.devices], places[-1] = np.arange(len(self.devices)), -1
        own = places[clusters]
        are_in = (own > -2).all(axis=-1)
        found_s: Floats = np.full(len(clusters), np.inf)
        found_s[are_in] = self.levels.turns_s(own[are_in])
        return found_s

    def beyond_s(self, prices: Floats, sizes: Counts) -> Floats:
        """Bound clusters less their devices' prices and what their level takes, [size, level]."""
        return np.stack([self.lowest(prices, size=size).beyond_s for size in sizes.tolist()])

    def between(self, chosen: Counts) -> "ClusterKind":
        """Look at levels between those that are chosen and the ones before."""
        times_s = self.levels.levels_s
        before_s = np.where(chosen > 0, times_s[chosen - 1], times_s[chosen] / 2)
        between_s = np.sqrt(before_s * times_s[chosen])
        levels = _levels_of_best(
            self.partings, self.samples, self.medium, between_s, width=self.width
        )
        return replace(self, levels=levels)


def _levels_of_best(
    partings: Sequence[DeviceTurns],
    samples: SampleLimits | None,
    medium: Medium,
    times_s: Floats,
    *,
    width: int,
) -> Levels:
    """Look devices up, each in the micro-batches that are best for it."""
    every = [Levels.of(turns, medium, times_s, samples=samples, width=width) for turns in partings]
    return replace(every[0], worth=np.max([each.worth for each in every], axis=0))


@dataclass(frozen=True)
class LowestClusters:
    """The cheapest clusters of a size, by level."""

    beyond_s: Floats
    """Less their devices' prices and what their level takes, [level]."""
    devices: Counts
    """Of the cheapest that was tried, [level, position]; -1 where none was."""


def _lowest(levels: Levels, low_s: Floats, prices: Floats, *, size: int) -> LowestClusters:
    """Bound clusters of a size that take up to each level."""
    num_levels = len(levels.levels_s)
    devices = np.full((num_levels, size), -1)
    if size > len(prices):
        return LowestClusters(np.full(num_levels, np.inf), devices)
    worth = levels.worth[:, :-1].swapaxes(1, 2)  # [level, price, device]
    unable = worth <= NEVER / 2
    needed = np.where(unable, 0.0, -worth)
    values_s, rates = by_price(
        needed, levels.whole, unable, prices,
        most=2 * levels.levels_s[:, np.newaxis], size=size, tangents=TANGENTS,
    )  # fmt: skip
    best = values_s.argmax(axis=-1)
    beyond_s = values_s[np.arange(num_levels), best]
    if size <= NUM_TRIED:
        rows = (beyond_s + low_s).argsort(kind="stable")[:LEVELS_TRIED]
        own = best[rows]
        devices[rows], tried_s = _tried(
            needed[rows, own], unable[rows, own], levels.of_levels(rows), prices,
            rates=rates[rows, own], whole=levels.whole[rows, own], size=size,
        )  # fmt: skip
        beyond_s[rows] = np.maximum(beyond_s[rows], tried_s)
    return LowestClusters(beyond_s, devices)


def _tried(
    needed: Floats, unable: Floats, levels: Levels, prices: Floats, *,
    rates: Floats, whole: Floats, size: int,
) -> tuple[Counts, Floats]:  # fmt: skip
    """Try all sets of the devices that are cheapest, and bound the others; [level, position]."""
    costs_s = np.where(unable, -NEVER, rates[:, np.newaxis] * needed - prices)
    order = costs_s.argsort(axis=-1, kind="stable")
    near, sets = order[:, :NUM_TRIED], all_sets(min(NUM_TRIED, len(prices)), size)
    others_s = np.full(len(costs_s), np.inf)
    if len(prices) > NUM_TRIED:
        cheapest = np.append(np.arange(size - 1), NUM_TRIED)
        others_s = np.take_along_axis(costs_s, order[:, cheapest], axis=-1).sum(axis=-1)
        others_s -= rates * whole
    worth = levels.worth[np.arange(len(near))[:, np.newaxis], near]  # [level, near, price]
    left = (worth.swapaxes(1, 2) @ sets + levels.whole[..., np.newaxis]).min(axis=1)
    paid_s = np.where(left < -ROUNDING, NEVER, prices[near] @ sets)
    best = paid_s.argmax(axis=-1)
    best_s = -np.take_along_axis(paid_s, best[:, np.newaxis], axis=-1)[:, 0]
    chosen = sets.T[best].nonzero()[1].reshape(-1, size)
    devices = np.take_along_axis(near, chosen, axis=-1)
    devices[best_s > -NEVER / 2] = -1
    return devices, np.minimum(best_s, others_s)
