"""How the samples of a cluster are shared out: as well as any search would, and never beyond."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from edge_coordinator.planning.batch_shares import Sharing, pricer_of, shared_sizes
from edge_coordinator.planning.bound.shared_batches import shared_bound_s
from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.division.pricing import THOROUGH_EXCHANGES, Pricer
from edge_coordinator.planning.division.sharing_pricer import SharingPricer
from edge_coordinator.planning.fleet import Fleet, Workload, device_memory_bytes
from edge_coordinator.planning.form import BatchSizes
from edge_coordinator.planning.latency import phase_seconds, round_s
from edge_coordinator.planning.micro_batches import smallest_of
from edge_coordinator.planning.plan import Plan
from edge_coordinator.planning.planner import plan_round
from profiles.device import DeviceState
from profiles.link import IndependentLinks, Medium, SharedLink, Subcarriers
from profiles.units import Counts, Floats
from tests.fleets import device, random_devices, workload

CUT = 2


def sharing_work(sizes: BatchSizes, *, batch: int = 16, medium: Medium | None = None) -> Workload:
    work = workload(medium or IndependentLinks())
    return replace(work, batch_sizes=sizes, batch_size=batch)


def planned(devices: list[DeviceState], work: Workload, *, num_clusters: int = 2) -> Plan:
    return plan_round(
        devices,
        work,
        grouping=Grouping("cpsl", num_clusters=num_clusters),
        cut=CUT,
        generator=np.random.default_rng(0),
    )


def sizes_of(devices: list[DeviceState], work: Workload, members: Counts) -> Floats:
    fleet = Fleet.of(devices)
    sharing: Sharing = "by_data" if work.batch_sizes == "by_data" else "by_speed"
    pricer = pricer_of(fleet, work, cut=CUT, sharing=sharing)
    sizes = shared_sizes(pricer, work, members)
    assert sizes is not None
    return sizes


def all_sizes(num_devices: int, total: int) -> Iterator[Floats]:
    for sizes in product(range(1, total + 1), repeat=num_devices):
        if sum(sizes) == total:
            yield np.array(sizes, dtype=np.float64)


@pytest.mark.parametrize("seed", range(3))
def test_no_other_sizes_end_the_last_device_earlier(seed: int) -> None:
    devices = random_devices(np.random.default_rng(seed), 3)
    work, fleet = sharing_work("by_speed", batch=4), Fleet.of(devices)

    def last_s(sizes: Floats) -> float:
        seconds = phase_seconds(fleet, work, cut=CUT, batch_sizes=sizes)
        return float(seconds.finish.sum(axis=0).max())

    found = sizes_of(devices, work, np.array([[0, 1, 2]]))
    assert found.sum() == 12
    assert last_s(found) == pytest.approx(min(map(last_s, all_sizes(3, 12))))


def test_clusters_share_samples_out_alone_as_beside_others_and_padded() -> None:
    devices = [
        replace(each, num_samples=20 + 10 * k)
        for k, each in enumerate(random_devices(np.random.default_rng(7), 6))
    ]
    work, rows = sharing_work("by_speed"), [[0, 1, 2], [3, 4], [5]]
    together = sizes_of(devices, work, np.array([[0, 1, 2], [3, 4, -1], [5, -1, -1]]))
    for row in rows:
        alone = sizes_of([devices[k] for k in row], work, np.arange(len(row))[np.newaxis])
        assert together[row].tolist() == alone.tolist()
        assert alone.sum() == 16 * len(row)


def test_by_data_sizes_are_in_proportion_to_it_within_a_sample() -> None:
    counts = [700, 210, 90, 1000]
    devices = [replace(device(f"d{k}"), num_samples=count) for k, count in enumerate(counts)]
    found = sizes_of(devices, sharing_work("by_data"), np.array([[0, 1, 2, 3]]))
    assert found.sum() == 64
    assert np.abs(found - 64 * np.array(counts) / sum(counts)).max() < 1


def test_nobody_has_more_samples_than_data_or_memory_or_four_times_the_jobs() -> None:
    work = sharing_work("by_speed")
    needed_bytes = device_memory_bytes(work)[CUT]
    fast = device("a", flop_per_s=1e12, up_bps=1e12, down_bps=1e12)
    devices = [
        replace(fast, num_samples=20),
        replace(fast, device="b", free_memory_bytes=1.5 * needed_bytes),
        replace(fast, device="c"),
        *(device(name, flop_per_s=1e3) for name in "defghi"),
    ]
    found = sizes_of(devices, work, np.array([range(9)]))
    assert found[:3].tolist() == [20, 24, 64]
    few = [replace(each, num_samples=3) for each in devices[3:5]]
    assert sizes_of(few, work, np.array([[0, 1]])).tolist() == [3, 3]


@pytest.mark.parametrize("medium", [IndependentLinks(), SharedLink(), Subcarriers(8)])
def test_a_plan_by_speed_is_shorter_than_one_of_equal_batches_and_says_by_how_much(
    medium: Medium,
) -> None:
    devices = random_devices(np.random.default_rng(3), 8)
    equal = planned(devices, sharing_work("equal", medium=medium))
    shared = planned(devices, sharing_work("by_speed", medium=medium))
    assert shared.predicted_s is not None
    assert equal.predicted_s is not None
    assert shared.lower_bound_s is not None
    assert shared.lower_bound_s <= shared.predicted_s < equal.predicted_s
    assert "with random clusters of equal mini-batches;" in shared.reason
    assert "of equal mini-batches" not in equal.reason
    assert f"samples by speed save {equal.predicted_s - shared.predicted_s:.3g} s" in shared.reason
    assert [sum(each.batch_sizes) for each in shared.clusters] == [64, 64]
    assert all(not each.batch_sizes for each in equal.clusters)


def test_devices_with_as_much_data_have_equal_mini_batches_and_the_plan_says_no_gain() -> None:
    devices = [
        replace(each, num_samples=300) for each in random_devices(np.random.default_rng(3), 8)
    ]
    plan = planned(devices, sharing_work("by_data"))
    assert "by data mini-batches are equal too, of 16 samples each" in plan.reason
    assert "save 0 s" not in plan.reason


def test_left_to_the_plan_mini_batches_stay_equal_where_devices_are_alike() -> None:
    alike = planned([device(name) for name in "abcd"], sharing_work("auto"))
    assert not any(each.batch_sizes for each in alike.clusters)
    assert "mini-batches stay equal: by speed they save little" in alike.reason
    unlike = planned(random_devices(np.random.default_rng(3), 8), sharing_work("auto"))
    assert all(each.batch_sizes for each in unlike.clusters)


def test_where_mini_batches_have_to_be_equal_a_plan_says_why() -> None:
    devices = random_devices(np.random.default_rng(3), 4)
    work = sharing_work("by_speed")
    layers = planned(devices, replace(work, equal_batches="norm keeps statistics"))
    assert "mini-batches stay equal: norm keeps statistics" in layers.reason
    graphs = planned(devices, replace(work, fixed_cuts=frozenset({CUT})))
    assert "the graphs at this cut take those of one size alone" in graphs.reason
    assert not any(each.batch_sizes for each in (*layers.clusters, *graphs.clusters))


@pytest.mark.parametrize("phi", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_no_clusters_and_no_sizes_beat_the_bound(seed: int, phi: float) -> None:
    devices = random_devices(np.random.default_rng(seed), 4)
    work, fleet = replace(sharing_work("by_speed", batch=2), phi=phi), Fleet.of(devices)
    pairs = [np.array([[0, k], [a, b]]) for k, a, b in ((1, 2, 3), (2, 1, 3), (3, 1, 2))]

    def took_s(members: Counts, sizes: Floats) -> float:
        seconds = phase_seconds(
            *(fleet, work), cut=CUT, batch_sizes=sizes, smallest=smallest_of(members, sizes)
        )
        return float(round_s(seconds, work, members=members, shares=np.ones((2, 2))))

    best_s = min(
        took_s(members, np.array([*first, *rest])[order])
        for members in pairs
        for order in [np.argsort(members.ravel())]
        for first in all_sizes(2, 4)
        for rest in all_sizes(2, 4)
    )
    bound_s = shared_bound_s(fleet, work, cut=CUT, sizes=np.array([2, 2]))
    assert 0.5 * best_s < bound_s <= best_s * (1 + 1e-9)


@pytest.mark.parametrize("medium", [SharedLink(), Subcarriers(6)])
@pytest.mark.parametrize("seed", range(4))
def test_where_a_link_is_divided_no_clusters_and_no_sizes_beat_the_bound(
    seed: int, medium: Medium
) -> None:
    """Half of the fleets wait for their links, where the bound of lines of their own is low."""
    speeds = {"flop_per_s": [1e8, 1e10][seed % 2], "up_bps": [1e7, 1e6][seed % 2]}
    devices = random_devices(np.random.default_rng(seed), 4, **speeds)
    work, fleet = sharing_work("by_speed", batch=2, medium=medium), Fleet.of(devices)
    pairs = [np.array([[0, k], [a, b]]) for k, a, b in ((1, 2, 3), (2, 1, 3), (3, 1, 2))]

    def took_s(members: Counts, sizes: Floats) -> float:
        seconds = phase_seconds(fleet, work, cut=CUT, batch_sizes=sizes)
        pricer = Pricer(seconds, medium, label_mix=None, balance_weight=0.0)
        shares = pricer.shares(members, max_exchanges=THOROUGH_EXCHANGES)
        return float(round_s(seconds, work, members=members, shares=shares))

    best_s = min(
        took_s(members, np.array([*first, *rest])[np.argsort(members.ravel())])
        for members in pairs
        for first in all_sizes(2, 4)
        for rest in all_sizes(2, 4)
    )
    bound_s, alone_s = (
        shared_bound_s(fleet, each, cut=CUT, sizes=np.array([2, 2]))
        for each in (work, replace(work, medium=IndependentLinks()))
    )
    assert alone_s <= bound_s <= best_s * (1 + 1e-9)
    assert bound_s > 0.4 * best_s
    if seed % 2:
        assert bound_s > 1.2 * alone_s


def test_while_clusters_are_compared_sizes_are_those_of_whole_samples_nearly() -> None:
    devices = random_devices(np.random.default_rng(5), 6)
    work, members = sharing_work("by_speed"), np.array([[0, 1, 2], [3, 4, 5]])
    pricer = pricer_of(Fleet.of(devices), work, cut=CUT, sharing="by_speed")
    assert isinstance(pricer, SharingPricer)
    nearly = 16 * pricer.sample_weights(members).ravel()
    assert np.abs(nearly - sizes_of(devices, work, members)).max() < 1
