"""Clusters of devices: Gibbs sampling over swaps of two devices between two clusters.

Clusters are [cluster, position] arrays of device indices, -1 where a cluster is smaller than
the largest. How swaps are drawn and taken: `planning/clusters/swaps.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_coordinator.planning.clusters.descent import can_descend, descended
from edge_coordinator.planning.clusters.swaps import Chains, drawn_swaps
from edge_coordinator.planning.division.pricing import (
    MAX_REMEMBERED_DEVICES,
    QUICK_EXCHANGES,
    THOROUGH_EXCHANGES,
    Pricer,
)
from edge_coordinator.planning.form import Form, GroupingTask, OwnGrouping, StrategyError
from edge_coordinator.planning.plan import InfeasiblePlanError
from profiles.device import DeviceState
from profiles.link import IndependentLinks, Medium
from profiles.units import Counts, Floats

NUM_DEVICES_AT_ONCE = 256
"""Below this, a sweep takes about as long whatever the number of chains."""


@dataclass(frozen=True)
class GibbsSchedule:
    """How long to sample and how warm.

    Temperatures (the paper's smooth factor) are fractions of the mean cost of a cluster at the
    start. In each chain they fall by a constant factor per sweep and end at `coldest`; the
    chains start between `cool` and `warm`: a cool chain refines the start, a warm one forgets
    it.
    """

    num_sweeps: int
    num_chains: int
    """Independent samplings, side by side; the best of them is kept."""
    warm: float
    cool: float
    coldest: float
    descends: bool = True
    """Whether the best swaps of all are taken in the end, where there are few clusters."""

    def temperatures(self) -> Floats:
        """List the temperature of each sweep of each chain, [sweep, chain]."""
        starts = np.geomspace(self.cool, self.warm, self.num_chains)
        return np.geomspace(starts, self.coldest, self.num_sweeps)


CUT_SCHEDULE = GibbsSchedule(
    num_sweeps=10, num_chains=4, warm=0.2, cool=0.02, coldest=0.001, descends=False
)
"""Enough to compare two rounds by, whose clusters are not used."""


def default_schedule(num_devices: int, *, num_clusters: int, medium: Medium) -> GibbsSchedule:
    """Choose a budget: many short, warm chains for few devices, a long, cool one for many.

    A sweep proposes one swap per pair of clusters, so that few clusters need more sweeps; fewer
    will do where all swaps are tried in the end. Where no link is divided, prices are cheap, and
    more sweeps are affordable.
    """
    per_device = 1 / max(num_devices, 1)
    pace = 8 if isinstance(medium, IndependentLinks) else 2
    fewest = 150 // max(num_clusters // 2, 1)
    num_sweeps = min(max(pace * num_devices, fewest), 200 * pace)
    width = -(-num_devices // max(num_clusters, 1))
    if pace == 2 and num_devices > MAX_REMEMBERED_DEVICES and can_descend(num_clusters, width):
        num_sweeps = num_devices // 2
    return GibbsSchedule(
        num_sweeps=num_sweeps,
        num_chains=int(np.clip(NUM_DEVICES_AT_ONCE * per_device, 1, 32)),
        warm=float(np.clip(8 * per_device, 0.02, 1.0)),
        cool=float(np.clip(per_device, 0.02, 1.0)),
        coldest=0.001,
    )


def sorted_clusters(pricer: Pricer, *, sizes: Counts, among: Counts | None = None) -> Counts:
    """Group devices with those of like finish time; equal ones stay in id order.

    All devices, or those that are `among`.
    """
    devices = np.arange(int(sizes.sum())) if among is None else among
    fixed_s, link_s = pricer.seconds.finish[:, devices]
    divided_by = 1.0 if isinstance(pricer.medium, IndependentLinks) else sizes.mean()
    finish_s = fixed_s + link_s * divided_by
    return _filled(devices[np.argsort(finish_s, kind="stable")], sizes=sizes)


def mixed_clusters(members: Counts) -> Counts:
    """Deal devices that are in order out to and fro, so that each cluster has some of every kind.

    `members` are sorted clusters, [cluster, position].
    """
    sizes, mixed = (members >= 0).sum(axis=-1), np.full_like(members, -1)
    order = range(len(sizes))
    places = [
        (cluster, place)
        for place in range(members.shape[1])
        for cluster in (reversed(order) if place % 2 else order)
        if place < sizes[cluster]
    ]
    mixed[tuple(np.array(places).T)] = members[members >= 0]
    return mixed


def clusters_by_id(*, sizes: Counts) -> Counts:
    """Group neighbours in id order."""
    return in_order(_filled(np.arange(sizes.sum()), sizes=sizes))


def random_clusters(*, sizes: Counts, generator: np.random.Generator) -> Counts:
    """Group devices at random."""
    return _filled(generator.permutation(int(sizes.sum())), sizes=sizes)


def gibbs_clusters(
    pricer: Pricer,
    *,
    start: Counts,
    schedule: GibbsSchedule,
    generator: np.random.Generator,
) -> Counts:
    """Sample swaps from a start and keep the best clusters seen, which may be the start.

    Devices are in order within a cluster and clusters by their first device, so that equal
    partitions are equal plans.
    """
    chains = Chains(pricer, start, num_chains=schedule.num_chains)
    if len(start) > 1 and chains.scale_s > 0:
        temperatures_s = schedule.temperatures() * chains.scale_s
        for swaps in drawn_swaps(start, temperatures_s, generator=generator):
            chains.sweep(swaps)
    found = _cheapest(pricer, np.concatenate([start[np.newaxis], chains.best]))
    if schedule.descends:
        lower = descended(chains.prices, found)
        found = _cheapest(pricer, np.stack([found, lower]))
    return in_order(found)


def own_clusters(
    pricer: Pricer,
    own: OwnGrouping,
    devices: Sequence[DeviceState],
    *,
    sizes: Counts,
    layer: str,
    generator: np.random.Generator,
) -> Counts:
    """Cluster the devices of `pricer` as code of the user's own says, [cluster, position]."""
    ordered = sorted(devices, key=lambda state: state.device)
    rows = {state.device: row for row, state in enumerate(ordered)}

    def seconds_of(cluster: Sequence[str]) -> float:
        members = np.array([sorted(rows[device] for device in cluster)])
        return float(pricer.latency_s(members, max_exchanges=THOROUGH_EXCHANGES)[0])

    task = GroupingTask(ordered, [int(size) for size in sizes], layer, seconds_of, generator)
    clusters = own(task)
    members = np.full((len(clusters), max(map(len, clusters))), -1, dtype=np.int64)
    for row, cluster in enumerate(clusters):
        members[row, : len(cluster)] = [rows[device] for device in cluster]
    try:
        pricer.shares(members, max_exchanges=QUICK_EXCHANGES)
    except InfeasiblePlanError as error:
        raise StrategyError(f"plan.grouping = {own.name} cannot be: {error}") from error
    return in_order(members)


def clusters_as(
    pricer: Pricer,
    form: Form,
    *,
    start: Counts,
    schedule: GibbsSchedule,
    generator: np.random.Generator,
) -> Counts:
    """Cluster the devices as asked for, [cluster, position]; `start` is sorted."""
    sizes = (start >= 0).sum(axis=-1)
    match form:
        case "planned":
            return gibbs_clusters(pricer, start=start, schedule=schedule, generator=generator)
        case "sorted":
            return in_order(start)
        case "random":
            return in_order(random_clusters(sizes=sizes, generator=generator))
        case "by_id":
            return clusters_by_id(sizes=sizes)


def in_order(members: Counts) -> Counts:
    """Sort the devices within each cluster, and the clusters by their first device."""
    last = np.iinfo(np.int64).max
    rows = np.sort(np.where(members < 0, last, members), axis=-1)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    return np.where(rows == last, -1, rows)


def _cheapest(pricer: Pricer, candidates: Counts) -> Counts:
    """Pick by thorough prices, the first of equals: quick ones only guided the sampling."""
    cost_s = pricer.cost_s(candidates, max_exchanges=THOROUGH_EXCHANGES).sum(axis=-1)
    cheapest: Counts = candidates[cost_s.argmin()]
    return cheapest


def _filled(devices: Counts, *, sizes: Counts) -> Counts:
    """Deal devices into clusters of the given sizes, [cluster, position]."""
    members = np.full((len(sizes), int(sizes.max())), -1, dtype=np.int64)
    members[np.arange(sizes.max()) < sizes[:, np.newaxis]] = devices
    return members
