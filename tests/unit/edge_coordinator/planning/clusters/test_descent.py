"""Where swapping ends: no swap of two devices saves anything."""

from functools import partial
from itertools import combinations

import numpy as np
import pytest

from edge_coordinator.planning.clusters.clustering import random_clusters, sorted_clusters
from edge_coordinator.planning.clusters.descent import can_descend, descended
from edge_coordinator.planning.clusters.grouping import cluster_sizes
from edge_coordinator.planning.division.pricing import THOROUGH_EXCHANGES
from profiles.link import IndependentLinks, Medium, SharedLink, Subcarriers
from tests.fleets import random_pricer


@pytest.mark.parametrize("medium", [IndependentLinks(), Subcarriers(12), SharedLink()])
@pytest.mark.parametrize("num_devices", [9, 14])
def test_no_swap_of_two_devices_saves_anything_in_the_end(medium: Medium, num_devices: int) -> None:
    generator = np.random.default_rng(num_devices)
    pricer = random_pricer(generator, num_devices, medium=medium)
    prices = partial(pricer.cost_s, max_exchanges=THOROUGH_EXCHANGES)
    start = random_clusters(sizes=cluster_sizes(num_devices, cluster_size=3), generator=generator)
    found = descended(prices, start)
    assert sorted(found.ravel().tolist()) == sorted(start.ravel().tolist())
    assert ((found >= 0).sum(axis=-1) == (start >= 0).sum(axis=-1)).all()
    least_s = prices(found).sum() * (1 - 1e-8)
    for one, other in combinations(range(num_devices), 2):
        swapped = np.where(found == one, other, np.where(found == other, one, found))
        assert prices(swapped).sum() >= least_s


def test_many_clusters_stay_as_they_are() -> None:
    pricer = random_pricer(np.random.default_rng(1), 200)
    start = sorted_clusters(pricer, sizes=cluster_sizes(200, cluster_size=5))
    assert not can_descend(*start.shape)
    assert descended(partial(pricer.cost_s, max_exchanges=0), start) is start
