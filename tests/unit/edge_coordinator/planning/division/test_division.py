"""Turns in micro-batches: their link and samples are divided about as well as any search would."""

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest

from edge_coordinator.planning.batch_shares import pricer_of, sharings
from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.division.device_turns import DeviceStages
from edge_coordinator.planning.division.dividing_pricer import DividingPricer
from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.form import BatchSizes
from edge_coordinator.planning.micro_batches import Flows
from edge_coordinator.planning.plan import StepFlow
from edge_coordinator.planning.planner import plan_round
from profiles.link import IndependentLinks, Medium, SharedLink, Subcarriers
from profiles.units import Counts, Floats
from tests.fleets import random_devices, workload

CUT = 2
BATCH = 4
MEDIA = [IndependentLinks(), Subcarriers(6), SharedLink()]


def work(
    medium: Medium,
    *,
    batch_size: int = 16,
    batch_sizes: BatchSizes = "by_speed",
    local_epochs: int = 1,
    server_device_s: float = 0.0,
) -> Workload:
    return replace(
        workload(medium, local_epochs=local_epochs),
        batch_size=batch_size,
        batch_sizes=batch_sizes,
        micro_batches=(1, 2, 4),
        server_device_s=server_device_s,
    )


def fleet_of(seed: int, num_devices: int, *, decades: float = 1.0) -> Fleet:
    return Fleet.of(random_devices(np.random.default_rng(seed), num_devices, decades=decades))


def turns_s(flows: Flows, members: Counts, shares: Floats) -> float:
    """Seconds of one turn in the best number of micro-batches."""
    rows, own = members[np.newaxis], shares[np.newaxis]
    return min(float(flows.turns_s(flow, members=rows, shares=own)[0]) for flow in flows.allowed)


def best_turn_s(fleet: Fleet, work: Workload, members: Counts) -> float:
    """Try all sizes of mini-batches of two devices, and all divisions of their subcarriers."""
    whole, best_s = work.batch_size * len(members), np.inf
    number = work.medium.num_subcarriers if isinstance(work.medium, Subcarriers) else 2
    for size, count in product(range(1, whole), range(1, number)):
        sizes = np.full(fleet.num_devices, float(work.batch_size))
        sizes[members] = size, whole - size
        shares = np.array([count, number - count]) / number
        if isinstance(work.medium, IndependentLinks):
            shares = np.ones(2)
        best_s = min(best_s, turns_s(Flows(fleet, work, CUT, sizes), members, shares))
    return best_s


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_devices_own_turn_is_the_longest_of_its_forms(epochs: int) -> None:
    fleet = fleet_of(1, 6)
    plain = work(SharedLink(), local_epochs=epochs, server_device_s=0.01)
    stages = DeviceStages.of(fleet, plain, cut=CUT)
    generator = np.random.default_rng(2)
    sizes, shares = generator.integers(1, 40, 6) / 16, generator.uniform(0.05, 1, 6)
    flows = Flows(fleet, plain, CUT, sizes * plain.batch_size)
    alone = np.arange(6)[:, np.newaxis]
    for count in (1, 2, 4):
        flow = StepFlow(count, 0.0)
        said_s = flows.turns_s(flow, members=alone, shares=shares[:, np.newaxis])
        forms = stages.turns(count).without_shorter().of_devices(np.arange(6))
        assert forms.at(sizes, shares) == pytest.approx(said_s)


@pytest.mark.parametrize("medium", MEDIA[:2])
def test_two_devices_share_link_and_samples_as_well_as_the_best_of_all_ways(
    medium: Medium,
) -> None:
    above = []
    for seed in range(12):
        fleet, plain = fleet_of(seed, 2), work(medium, batch_size=8)
        pricer = pricer_of(fleet, plain, cut=CUT, sharing="by_speed")
        members = np.array([[0, 1]])
        sizes = pricer.shared_out(members, batch=8)[0].astype(np.float64)
        flows = Flows(fleet, plain, CUT, sizes)
        took_s = min(each.turn_s for each in flows.chosen(members))
        above.append(took_s / best_turn_s(fleet, plain, members[0]) - 1)
    assert np.median(above) <= 0.01
    assert max(above) <= 0.12  # The one that has most of the samples may have to leave some.


@pytest.mark.parametrize("medium", MEDIA)
@pytest.mark.parametrize("batch_sizes", ["equal", "by_speed"])
def test_clusters_are_looked_up_as_what_they_take(medium: Medium, batch_sizes: BatchSizes) -> None:
    medium = Subcarriers(30) if isinstance(medium, Subcarriers) else medium
    fleet = fleet_of(3, 10, decades=1.5)
    plain = work(medium, batch_size=16, batch_sizes=batch_sizes)
    (sharing,) = sharings(plain, cut=CUT)
    pricer = pricer_of(fleet, plain, cut=CUT, sharing=sharing)
    members = np.array([*combinations(range(10), 5)])[::10]
    off = []
    for row, priced_s in zip(members, pricer.latency_s(members, max_exchanges=0), strict=True):
        sizes = np.full(10, 16.0)
        sizes[row] = pricer.shared_out(row[np.newaxis], batch=16)[0]
        (turn,) = Flows(fleet, plain, CUT, sizes).chosen(row[np.newaxis])
        off.append(turn.turn_s / priced_s - 1)
    assert abs(np.median(off)) <= 0.05
    assert min(off) >= -0.06
    assert np.percentile(off, 90) <= 0.15


@pytest.mark.parametrize("medium", MEDIA)
def test_no_round_is_shorter_than_its_bound(medium: Medium) -> None:
    """Of four devices in twos: all partitions, sizes and divisions, each in all micro-batches."""
    for seed in range(4):
        devices = random_devices(np.random.default_rng(seed), 4)
        fleet, plain = Fleet.of(devices), work(medium, batch_size=BATCH)
        if isinstance(medium, SharedLink):
            plain = replace(plain, medium=Subcarriers(12))  # Its divisions are some of those.
        best_s = min(
            sum(best_turn_s(fleet, plain, np.array(pair)) for pair in halves)
            for halves in (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2)))
        )
        plan = plan_round(
            devices, replace(plain, medium=medium), cut=CUT,
            grouping=Grouping("cpsl", cluster_size=2), generator=np.random.default_rng(0),
        )  # fmt: skip
        assert plan.lower_bound_s is not None
        assert plan.lower_bound_s <= best_s * (1 + 1e-9)
        assert plan.lower_bound_s >= 0.6 * best_s


def test_no_device_is_left_without_samples_that_it_does_in_time() -> None:
    """However much faster it would be to give the link, and so the samples, to one alone."""
    devices = random_devices(np.random.default_rng(0), 5, decades=0.0)
    link = devices[0].link
    assert link is not None
    slower = replace(devices[0], link=replace(link, up_bps=link.up_bps / 1.5))
    plan = plan_round(
        [slower, *devices[1:]], work(SharedLink(), batch_size=16), cut=CUT,
        grouping=Grouping("cpsl", cluster_size=5), generator=np.random.default_rng(0),
    )  # fmt: skip
    (cluster,) = plan.clusters
    assert sum(cluster.batch_sizes) == 5 * 16
    assert min(cluster.batch_sizes) >= 4


def test_clusters_of_several_sizes_and_little_data_are_shared_out_whole() -> None:
    devices = random_devices(np.random.default_rng(5), 5)
    devices = [replace(devices[0], num_samples=3), *devices[1:]]
    fleet, plain = Fleet.of(devices), work(SharedLink(), batch_size=16)
    pricer = pricer_of(fleet, plain, cut=CUT, sharing="by_speed")
    assert isinstance(pricer, DividingPricer)
    members = np.array([[0, 1, 2], [3, 4, -1]])
    sizes = pricer.shared_out(members, batch=16)
    assert sizes.sum(axis=-1).tolist() == [48, 32]
    assert 1 <= sizes[0, 0] <= 3
    assert sizes[1, 2] == 0
    shares = pricer.shares(members, max_exchanges=0)
    assert shares[0].sum() == pytest.approx(1)
    assert shares[1, :2].sum() == pytest.approx(1)


def test_turns_that_were_learned_to_take_nothing_are_planned() -> None:
    """What is learned of turns besides may be as much below zero as they take."""
    plain = replace(work(SharedLink()), cluster_overhead_s=-1e3)
    devices = random_devices(np.random.default_rng(1), 6)
    plan = plan_round(
        devices, plain, cut=None, grouping=Grouping("cpsl", cluster_size=3, cuts_by_device=True),
        generator=np.random.default_rng(0),
    )  # fmt: skip
    assert plan.predicted_s is not None
    assert 0 < plan.predicted_s < np.inf
