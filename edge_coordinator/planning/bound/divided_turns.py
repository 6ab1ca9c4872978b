"""What a round takes at least where turns are done as soon as their devices can be.

Clusters are relaxed to what `division/levels.py` looks up: devices that are worth something within
some seconds, and a link that is worth something to all of them, at several prices. Within a level a
cluster has to be worth enough at every price; the cheapest such cluster, less the prices of its
devices, bounds what all clusters take together as in `device_prices`. Prices of devices move
against a pool of clusters and what these take at least, as in `pooled_prices`.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_coordinator.planning.bound.cluster_kinds import ClusterKind
from edge_coordinator.planning.bound.pooled_prices import (
    MOST_DEVICES,
    WaitedBy,
    first_pools,
    moved,
)
from edge_coordinator.planning.division.device_turns import DeviceStages, DeviceTurns
from edge_coordinator.planning.division.limits import LimitsOf
from edge_coordinator.planning.division.pricing import QUICK_EXCHANGES, Pricer
from edge_coordinator.planning.fleet import Fleet, Workload
from profiles.units import Counts, Floats

ROUNDS = 3
WARMEST = 0.02
"""Of a cluster's mean seconds: how far above the cheapest a cluster still counts at first."""
SPLITS = 6
SPLIT_AT_ONCE = 8
"""Levels, the lowest, that are split."""
NEAR = 0.05
"""Of a cluster's seconds: clusters that are so far above the lowest are worth to be known."""
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
    turns_s = pricer.latency_s(members, max_exchanges=QUICK_EXCHANGES)
    planned_s = np.array([turns_s.min(), turns_s.max()])
    is_any = work.num_aggregated(cut) > 0
    kinds = [
        ClusterKind.of(
            _partings(stages, workload.partings, is_any=is_any, is_mixed=is_mixed),
            samples_of(is_mixed=is_mixed), workload.medium,
            devices=devices, width=members.shape[1], planned_s=planned_s,
        )
        for is_mixed, devices in _alike(fleet, cut=cut, members=members)
    ]  # fmt: skip
    return max(_clusters_s(kinds, members), 0.0) + overhead_s


def _partings(
    stages: DeviceStages, partings: Sequence[int], *, is_any: bool, is_mixed: bool
) -> list[DeviceTurns]:
    """List what turns take of devices in each number of micro-batches that may be the best.

    Where gradients are aggregated parts may be of `any` size: as of ever so many, and few messages.
    """
    if is_any and partings[-1] > 1:
        turns = [stages.turns(_ANY_PARTS, messages=1, is_mixed=is_mixed)]
    else:
        turns = [stages.turns(count, is_mixed=is_mixed) for count in partings]
    turns = [each.without_shorter() for each in turns]
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


def _clusters_s(kinds: list[ClusterKind], members: Counts) -> float:
    """Seconds of all clusters together at least."""

    def turns_s(clusters: Counts) -> Floats:
        shortest_s: Floats = np.min([kind.turns_s(clusters) for kind in kinds], axis=0)
        return shortest_s

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
            if above_s.min() > 0:
                continue  # Another kind's clusters are cheaper.
            between = kind.between(above_s.argsort(kind="stable")[:SPLIT_AT_ONCE])
            times_s = np.concatenate([kind.levels.levels_s, between.levels.levels_s])
            order = times_s.argsort(kind="stable")
            both_s = [beyond_s[place], between.beyond_s(prices, sizes)]
            beyond_s[place] = np.concatenate(both_s, axis=-1)[:, order]
            kinds[place] = replace(kind, levels=kind.levels.joined(between.levels))
    return bound_s


def _moved_prices(
    kinds: Sequence[ClusterKind], members: Counts, turns_s: WaitedBy, prices: Floats
) -> Floats:
    """Move prices against a pool of clusters, and the cheapest ones at these prices."""
    pools, target_s = first_pools(members, turns_s)
    cluster_s = target_s / len(members)
    warmth_s = WARMEST * cluster_s
    for round_ in range(ROUNDS):
        prices, warmth_s = moved(pools, prices, target_s=target_s, warmth_s=warmth_s)
        for size in [*pools] if round_ < ROUNDS - 1 else []:
            lowest = kinds[-1].lowest(prices, size=size)  # Of all devices.
            values_s = lowest.beyond_s + kinds[-1].low_s
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
