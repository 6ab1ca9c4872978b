"""Clusters that were chosen for barriers, swapped for what their micro-batches take."""

from dataclasses import replace

import numpy as np
import pytest

from edge_coordinator.planning.clusters.clustering import in_order, sorted_clusters
from edge_coordinator.planning.clusters.grouping import cluster_sizes
from edge_coordinator.planning.fleet import Fleet
from edge_coordinator.planning.micro_batches import Flows, regrouped
from profiles.link import IndependentLinks, Medium, SharedLink, Subcarriers
from profiles.units import Counts
from tests.fleets import random_devices, workload


@pytest.mark.parametrize("medium", [IndependentLinks(), Subcarriers(12), SharedLink()])
def test_the_same_devices_are_swapped_only_for_a_shorter_round(medium: Medium) -> None:
    shorter_s = [_shorter_s(medium, seed) for seed in range(3)]
    assert min(shorter_s) >= 0
    assert max(shorter_s) > 0


def _shorter_s(medium: Medium, seed: int) -> float:
    """Regroup sorted clusters, and tell by how much the round is shorter then."""
    work = replace(workload(medium), micro_batches=(1, 4))
    fleet = Fleet.of(random_devices(np.random.default_rng(seed), 12, up_bps=3e6))
    flows = Flows(fleet, work, 2)
    pricer = flows.pricer(0.0)

    def round_s(members: Counts) -> float:
        return sum(each.turn_s for each in flows.chosen(members))

    start = in_order(sorted_clusters(pricer, sizes=cluster_sizes(12, cluster_size=4)))
    found = regrouped(pricer, flows, start)
    assert sorted(found.ravel().tolist()) == list(range(12))
    return round_s(start) - round_s(found)


def test_where_mini_batches_stay_whole_clusters_do_too() -> None:
    work = workload(SharedLink())
    fleet = Fleet.of(random_devices(np.random.default_rng(0), 12))
    flows = Flows(fleet, work, 2)
    pricer = flows.pricer(0.0)
    start = sorted_clusters(pricer, sizes=cluster_sizes(12, cluster_size=4))
    assert regrouped(pricer, flows, start) is start
