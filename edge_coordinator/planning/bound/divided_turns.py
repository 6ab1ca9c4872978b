"""What a round takes at least where turns are done as soon as their devices can be.

Clusters are relaxed to what `division/levels.py` looks up: devices that are worth something within
some seconds, and a link that is worth something to all of them, at several prices. Within a level a
cluster has to be worth enough at every price; the cheapest such cluster, less the prices of its
devices, bounds what all clusters take together as in `device_prices`. Prices of devices move
against a pool of clusters and what these take at least, as in `pooled_prices`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_coordinator.planning.bound.enumeration import NUM_TRIED, all_sets
from edge_coordinator.planning.bound.link_price import by_price
from edge_coordinator.planning.bound.pooled_prices import (
    MOST_DEVICES,
    WaitedBy,
    first_pools,
    moved,
)
from edge_coordinator.planning.division.device_turns import DeviceStages, DeviceTurns
from edge_coordinator.planning.division.levels import NEVER, Levels, levels_of
from edge_coordinator.planning.division.limits import LimitsOf, SampleLimits
from edge_coordinator.planning.division.pricing import QUICK_EXCHANGES, Pricer
from edge_coordinator.planning.fleet import Fleet, Workload
from profiles.link import Medium
from profiles.units import Counts, Floats

ROUNDS = 4
WARMEST = 0.02
"""Of a cluster's mean seconds: how far above the cheapest a cluster still counts at first."""
NUM_LEVELS = 24
BEYOND_PLAN = 1.3
"""The highest level but some, relative to a plan's longest turn."""
NUM_BEYOND = 8
SPLITS = 6
SPLIT_AT_ONCE = 4
"""Levels, the lowest, that are split."""
TANGENTS = 5
NEAR = 0.05
"""Of a cluster's seconds: clusters that are so far above the lowest are worth to be known."""
ROUNDING = 1e-9
_ANY_BYTES = 1e18
"""Whatever is sent is one message."""
_ANY_PARTS = 10**6


def divided_bound_s(
    fleet: Fleet,
    workload: Workload,
    pricer: Pricer,
    samples_of: LimitsOf,
    *,
    cut: int,
    members: Counts,
) -> float:
    """Seconds that no round beats at a cut in clusters of the sizes of these, [cluster, position].

    The better they are, the higher is the bound; so are the prices that they were formed by.
    """
    phi = max(workload.phis_at(cut))  # The more is aggregated the less a device waits for its own.
    work = replace(workload, message_bytes=_ANY_BYTES, phi=phi, phis=())
    stages = DeviceStages.of(fleet, work, cut=cut)
    overhead_s = len(members) * workload.cluster_overhead_s + workload.round_overhead_s
    if workload.partings == (1,):  # Then the server does nothing while devices do anything.
        own = np.minimum(fleet.num_samples / workload.batch_size, 1.0)
        stages, server_s = stages.without_server(own)
        overhead_s += server_s
    most_s = float(pricer.latency_s(members, max_exchanges=QUICK_EXCHANGES).max())
    kinds = [
        _Kind.of(
            turns, samples_of(is_mixed=is_mixed), workload.medium,
            devices=devices, width=members.shape[1], most_s=most_s,
        )
        for is_mixed, devices in _alike(fleet, cut=cut, members=members)
        for turns in _at_least(stages, work, is_any=work.num_aggregated(cut) > 0, is_mixed=is_mixed)
    ]  # fmt: skip
    return max(_clusters_s(kinds, pricer, members), 0.0) + overhead_s


def _at_least(
    stages: DeviceStages, workload: Workload, *, is_any: bool, is_mixed: bool
) -> list[DeviceTurns]:
    """Take turns that are no longer than those in any number of micro-batches that there may be.

    Two numbers are as parted as the larger, and of as many messages as the smaller. Parts may be of
    `any` size where gradients are aggregated: as of ever so many.
    """
    several = [
        workload.partings[place : place + 2] for place in range(0, len(workload.partings), 2)
    ]
    turns = [
        stages.turns(
            _ANY_PARTS if is_any and pair[-1] > 1 else pair[-1], messages=pair[0], is_mixed=is_mixed
        ).without_shorter()
        for pair in several
    ]
    return [
        one
        for place, one in enumerate(turns)
        if not any(other.is_shorter(one) for other in turns[place + 1 :])
    ]


def _alike(fleet: Fleet, *, cut: int, members: Counts) -> list[tuple[bool, Counts]]:
    """List who could be in a cluster of one cut, and in one of mixed cuts, if there are any."""
    cuts, least = fleet.cuts_by(cut), int((members >= 0).sum(axis=-1).min())
    groups = [(False, np.flatnonzero(cuts == own)) for own in np.unique(cuts)]
    groups = [(is_mixed, devices) for is_mixed, devices in groups if len(devices) >= least]
    return groups + ([(True, np.arange(len(cuts)))] if fleet.cuts is not None else [])


@dataclass(frozen=True)
class _Kind:
    """Clusters of one kind: of mixed cuts, or of one."""

    devices: Counts
    """Who may be in them."""
    turns: DeviceTurns
    samples: SampleLimits | None
    medium: Medium
    width: int
    levels: Levels

    @classmethod
    def of(
        cls, turns: DeviceTurns, samples: SampleLimits | None, medium: Medium, *,
        devices: Counts, width: int, most_s: float,
    ) -> "_Kind":  # fmt: skip
        """Look devices up up to where any of their clusters is done."""
        turns, samples = turns.of_devices(devices), samples and samples.of_devices(devices)
        every_s = levels_of(turns, samples=samples, medium=medium, width=width)
        most_s = float(np.clip(BEYOND_PLAN * most_s, every_s[0] * 1.01, every_s[-1]))
        times_s = np.concatenate(
            [
                np.geomspace(every_s[0], most_s, NUM_LEVELS),
                np.geomspace(most_s, max(every_s[-1], most_s * 1.01), NUM_BEYOND)[1:],
            ]
        )
        levels = Levels.of(turns, medium, times_s, samples=samples, width=width)
        return cls(devices, turns, samples, medium, width, levels)

    @property
    def low_s(self) -> Floats:
        """What clusters of each level take at least: they take longer than the one before it."""
        return np.concatenate([[0.0], self.levels.levels_s[:-1]])

    def lowest(self, prices: Floats, *, size: int) -> "_Lowest":
        """Bound clusters of a size, by level."""
        lowest = _lowest(self.levels, prices[self.devices], size=size)
        found = np.where(lowest.devices < 0, -1, self.devices[lowest.devices])
        return _Lowest(lowest.beyond_s, found)

    def beyond_s(self, prices: Floats, sizes: Counts) -> Floats:
        """Bound clusters less their devices' prices and what their level takes, [size, level]."""
        return np.stack([self.lowest(prices, size=size).beyond_s for size in sizes.tolist()])

    def between(self, chosen: Counts) -> "_Kind":
        """Look at levels between those that are chosen and the ones before."""
        times_s = self.levels.levels_s
        before_s = np.where(chosen > 0, times_s[chosen - 1], times_s[chosen] / 2)
        levels = Levels.of(
            self.turns, self.medium, np.sqrt(before_s * times_s[chosen]),
            samples=self.samples, width=self.width,
        )  # fmt: skip
        return replace(self, levels=levels)


@dataclass(frozen=True)
class _Lowest:
    """The cheapest clusters of a size, by level."""

    beyond_s: Floats
    """Less their devices' prices and what their level takes, [level]."""
    devices: Counts
    """Of the cheapest that was tried, [level, position]; -1 where none was."""


def _clusters_s(kinds: list[_Kind], pricer: Pricer, members: Counts) -> float:
    """Seconds of all clusters together at least."""

    def turns_s(clusters: Counts) -> Floats:
        return pricer.latency_s(clusters, max_exchanges=QUICK_EXCHANGES)

    sizes, counts = np.unique((members >= 0).sum(axis=-1), return_counts=True)
    prices = _first_prices(members, turns_s(members))
    if len(prices) <= MOST_DEVICES:
        prices = _moved_prices(kinds, members, turns_s, prices)
    beyond_s = [kind.beyond_s(prices, sizes) for kind in kinds]
    bound_s = -np.inf
    for _ in range(SPLITS):
        values_s = [each + kind.low_s for kind, each in zip(kinds, beyond_s, strict=True)]
        least_s = np.min([each.min(axis=-1) for each in values_s], axis=0)
        bound_s = max(bound_s, float(prices.sum() + counts @ least_s))
        for place, kind in enumerate(kinds):
            above_s = (values_s[place] - least_s[:, np.newaxis]).min(axis=0)
            between = kind.between(above_s.argsort(kind="stable")[:SPLIT_AT_ONCE])
            times_s = np.concatenate([kind.levels.levels_s, between.levels.levels_s])
            order = times_s.argsort(kind="stable")
            both_s = [beyond_s[place], between.beyond_s(prices, sizes)]
            beyond_s[place] = np.concatenate(both_s, axis=-1)[:, order]
            kinds[place] = replace(kind, levels=kind.levels.joined(between.levels))
    return bound_s


def _moved_prices(
    kinds: Sequence[_Kind], members: Counts, turns_s: WaitedBy, prices: Floats
) -> Floats:
    """Move prices against a pool of clusters, and the cheapest ones at these prices."""
    pools, target_s = first_pools(members, turns_s)
    cluster_s = target_s / len(members)
    warmth_s = WARMEST * cluster_s
    for round_ in range(ROUNDS):
        prices, warmth_s = moved(pools, prices, target_s=target_s, warmth_s=warmth_s)
        for size in [*pools] if round_ < ROUNDS - 1 else []:
            for kind in kinds:
                lowest = kind.lowest(prices, size=size)
                values_s = lowest.beyond_s + kind.low_s
                near = values_s <= values_s.min() + NEAR * cluster_s
                found = lowest.devices[near & (lowest.devices[:, 0] >= 0)]
                pools[size] = pools[size].with_more(np.sort(found, axis=-1), turns_s)
    return prices


def _first_prices(members: Counts, turns_s: Floats) -> Floats:
    """Let each cluster's devices pay alike for its turn, [device]."""
    is_there = members >= 0
    prices = np.zeros(int(members.max()) + 1)
    each_s = turns_s / is_there.sum(axis=-1)
    prices[members[is_there]] = np.broadcast_to(each_s[:, np.newaxis], members.shape)[is_there]
    return prices


def _lowest(levels: Levels, prices: Floats, *, size: int) -> _Lowest:
    """Bound clusters of a size that take up to each level."""
    num_levels = len(levels.levels_s)
    if size > len(prices):
        return _Lowest(np.full(num_levels, np.inf), np.full((num_levels, size), -1))
    worth = levels.worth[:, :-1].swapaxes(1, 2)  # [level, price, device]
    unable = worth <= NEVER / 2
    needed = np.where(unable, 0.0, -worth)
    values_s, rates = by_price(
        needed, levels.whole, unable, prices,
        most=2 * levels.levels_s[:, np.newaxis], size=size, tangents=TANGENTS,
    )  # fmt: skip
    best = values_s.argmax(axis=-1)
    rows = np.arange(len(best))
    values_s, devices = values_s[rows, best], np.full((len(best), size), -1)
    if size <= NUM_TRIED:
        devices, tried_s = _tried(
            needed[rows, best], unable[rows, best], levels, prices,
            rates=rates[rows, best], whole=levels.whole[rows, best], size=size,
        )  # fmt: skip
        values_s = np.maximum(values_s, tried_s)
    return _Lowest(values_s, devices)


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
