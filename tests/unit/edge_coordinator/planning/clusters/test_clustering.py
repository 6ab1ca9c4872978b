"""Clusters against exhaustive search, the sorted start and themselves."""

import math

import numpy as np
import pytest

from edge_coordinator.planning.clusters.clustering import (
    GibbsSchedule,
    default_schedule,
    gibbs_clusters,
    in_order,
    random_clusters,
    sorted_clusters,
)
from edge_coordinator.planning.clusters.grouping import cluster_sizes
from edge_coordinator.planning.clusters.swaps import least_gain_s
from edge_coordinator.planning.division.pricing import THOROUGH_EXCHANGES, Pricer, imbalance
from edge_coordinator.planning.fleet import Fleet
from edge_coordinator.planning.latency import PhasesByShare, phase_seconds
from profiles.link import IndependentLinks, Medium, SharedLink, Subcarriers
from profiles.phases import Phase
from profiles.units import Counts
from tests.fleets import (
    best_of_all_s,
    device,
    random_devices,
    random_pricer,
    with_labels,
    workload,
)

MEDIA: list[Medium] = [IndependentLinks(), Subcarriers(12), SharedLink()]


def round_s(pricer: Pricer, members: Counts) -> float:
    return float(pricer.cost_s(members, max_exchanges=THOROUGH_EXCHANGES).sum())


def planned(pricer: Pricer, sizes: Counts, *, seed: int) -> Counts:
    return gibbs_clusters(
        pricer,
        start=sorted_clusters(pricer, sizes=sizes),
        schedule=default_schedule(int(sizes.sum()), num_clusters=len(sizes), medium=pricer.medium),
        generator=np.random.default_rng(seed),
    )


def test_clusters_are_within_5_percent_of_exhaustive_search_on_200_instances() -> None:
    generator = np.random.default_rng(20)
    losses = []
    for instance in range(200):
        num_devices = int(generator.integers(3, 9))
        num_clusters = int(generator.integers(2, max(num_devices // 2, 2) + 1))
        pricer = random_pricer(
            generator, num_devices, medium=MEDIA[instance % 3], local_epochs=1 + instance % 2
        )
        sizes = cluster_sizes(num_devices, num_clusters=num_clusters)
        found_s = round_s(pricer, planned(pricer, sizes, seed=instance))
        losses.append(found_s / best_of_all_s(pricer, sizes) - 1)
    assert max(losses) <= 0.05
    assert np.mean(losses) < 0.001


@pytest.mark.parametrize("medium", MEDIA)
@pytest.mark.parametrize("num_devices", [2, 7, 30, 101])
def test_clusters_are_never_worse_than_the_sorted_start(medium: Medium, num_devices: int) -> None:
    pricer = random_pricer(np.random.default_rng(num_devices), num_devices, medium=medium)
    sizes = cluster_sizes(num_devices, cluster_size=5)
    start = sorted_clusters(pricer, sizes=sizes)
    hot = GibbsSchedule(num_sweeps=3, num_chains=2, warm=9.0, cool=9.0, coldest=9.0)
    members = gibbs_clusters(pricer, start=start, schedule=hot, generator=np.random.default_rng(0))
    assert round_s(pricer, members) <= round_s(pricer, start)


def test_every_device_is_in_one_cluster_of_the_size_asked_for() -> None:
    pricer = random_pricer(np.random.default_rng(3), 23)
    sizes = cluster_sizes(23, num_clusters=5)
    members = planned(pricer, sizes, seed=0)
    assert sizes.tolist() == [5, 5, 5, 4, 4]
    assert sorted((members >= 0).sum(axis=-1).tolist(), reverse=True) == sizes.tolist()
    assert sorted(members[members >= 0].tolist()) == list(range(23))


def test_equal_inputs_give_equal_clusters_ties_included() -> None:
    states = [device(f"d{k}", flop_per_s=[1e8, 2e8][k % 2]) for k in range(12)]
    seconds = phase_seconds(Fleet.of(states), workload(Subcarriers(12)), cut=2)
    pricer = Pricer(seconds, Subcarriers(12), label_mix=None, balance_weight=0.0)
    sizes = cluster_sizes(12, num_clusters=4)
    first, second = (planned(pricer, sizes, seed=7) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_equal_devices_are_sorted_by_their_ids() -> None:
    seconds = phase_seconds(
        Fleet.of([device(f"d{k}") for k in range(6)]), workload(IndependentLinks()), cut=1
    )
    pricer = Pricer(seconds, IndependentLinks(), label_mix=None, balance_weight=0.0)
    start = sorted_clusters(pricer, sizes=np.array([3, 3]))
    assert start.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_few_slow_devices_end_up_together() -> None:
    states = [device(f"d{k}", flop_per_s=1e6 if k in {1, 4, 8} else 1e8) for k in range(9)]
    seconds = phase_seconds(Fleet.of(states), workload(IndependentLinks()), cut=2)
    pricer = Pricer(seconds, IndependentLinks(), label_mix=None, balance_weight=0.0)
    members = planned(pricer, cluster_sizes(9, cluster_size=3), seed=0)
    assert [1, 4, 8] in members.tolist()


def test_planned_clusters_beat_random_ones() -> None:
    generator = np.random.default_rng(4)
    pricer = random_pricer(generator, 30, medium=Subcarriers(30))
    sizes = cluster_sizes(30, num_clusters=6)
    by_chance_s = [
        round_s(pricer, random_clusters(sizes=sizes, generator=generator)) for _ in range(20)
    ]
    assert round_s(pricer, planned(pricer, sizes, seed=0)) < min(by_chance_s)


def test_a_weight_on_balance_mixes_labels() -> None:
    generator = np.random.default_rng(5)
    states = [
        with_labels(state, (100, 0) if k < 6 else (0, 100))
        for k, state in enumerate(random_devices(generator, 12))
    ]
    fleet, sizes = Fleet.of(states), cluster_sizes(12, num_clusters=3)
    assert fleet.label_mix is not None
    seconds = phase_seconds(fleet, workload(IndependentLinks()), cut=2)
    unmixed, latency_s = [], []
    for weight in (0.0, 5.0):
        pricer = Pricer(seconds, IndependentLinks(), fleet.label_mix, weight)
        members = planned(pricer, sizes, seed=0)
        unmixed.append(imbalance(fleet.label_mix, members).sum())
        latency_s.append(pricer.latency_s(members, max_exchanges=0).sum())
    assert unmixed[1] == 0 < unmixed[0]
    assert latency_s[0] <= latency_s[1]


def test_imbalance_is_nought_for_the_whole_mix_and_one_for_foreign_labels() -> None:
    rare = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]])
    assert imbalance(rare, np.array([[0, 1, 2]])) == pytest.approx([0.0])
    assert imbalance(rare, np.array([[0, -1, -1]])) == pytest.approx([2 / 3])


@pytest.mark.parametrize(
    ("num_devices", "num_clusters", "medium", "schedule"),
    [
        (8, 4, IndependentLinks(), GibbsSchedule(75, 32, 1.0, 1 / 8, 0.001)),
        (64, 6, Subcarriers(64), GibbsSchedule(128, 4, 1 / 8, 0.02, 0.001)),
        (1000, 200, IndependentLinks(), GibbsSchedule(1600, 1, 0.02, 0.02, 0.001)),
        (2, 1, SharedLink(), GibbsSchedule(150, 32, 1.0, 0.5, 0.001)),
        (0, 0, SharedLink(), GibbsSchedule(150, 32, 1.0, 1.0, 0.001)),
    ],
)
def test_few_devices_have_many_warm_chains_and_many_have_a_long_cool_one(
    num_devices: int, num_clusters: int, medium: Medium, schedule: GibbsSchedule
) -> None:
    assert default_schedule(num_devices, num_clusters=num_clusters, medium=medium) == schedule


def test_a_swap_is_taken_by_what_it_saves_and_how_warm_it_is() -> None:
    draws = (np.arange(100_000) + 0.5) / 100_000
    for gain_s in (-2.0, -0.1, 0.0, 0.3, 1.0):
        for temperature_s in (0.2, 5.0):
            least_s = least_gain_s(draws, temperature_s=np.array([temperature_s]))
            expected = 1 / (1 + math.exp(-gain_s / temperature_s))
            assert (gain_s > least_s).mean() == pytest.approx(expected, abs=2e-5)
    ends = least_gain_s(np.array([0.0, 1 - 2.0**-53]), temperature_s=np.array([1e-9]))
    assert ends[0] < -1e9
    assert ends[1] < 1e9


def _pricer(*, fixed_s: list[float], link_s: list[float]) -> Pricer:
    """Devices that take this to their smashed data alone."""
    fixed, link = np.zeros((2, len(Phase), len(fixed_s)))
    fixed[Phase.FORWARD], link[Phase.UPLOAD] = fixed_s, link_s
    none = np.zeros_like(fixed)
    seconds = PhasesByShare(fixed, link, 1, loss_on_device=False, delay_s=none)
    return Pricer(seconds, IndependentLinks(), label_mix=None, balance_weight=0.0)


def test_the_start_is_sorted_by_the_whole_time_until_a_device_has_sent() -> None:
    pricer = _pricer(fixed_s=[1.0, 0.0, 0.5], link_s=[0.0, 0.9, 0.6])
    assert sorted_clusters(pricer, sizes=np.array([1, 1, 1])).tolist() == [[1], [0], [2]]


def test_where_nothing_costs_anything_the_start_is_as_good_as_any() -> None:
    start = np.array([[3, 1], [2, 0]])
    pricer = _pricer(fixed_s=[0.0] * 4, link_s=[0.0] * 4)
    schedule = default_schedule(4, num_clusters=2, medium=IndependentLinks())
    members = gibbs_clusters(
        pricer, start=start, schedule=schedule, generator=np.random.default_rng(0)
    )
    assert members.tolist() == [[0, 2], [1, 3]]


def test_clusters_are_in_the_order_of_their_first_devices() -> None:
    assert in_order(np.array([[7, 5, -1], [2, -1, 6], [4, 3, 0]])).tolist() == [
        *([0, 3, 4], [2, 6, -1], [5, 7, -1])
    ]
