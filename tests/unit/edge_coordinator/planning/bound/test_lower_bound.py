"""The bound on a round's seconds, against the best of all rounds and against what plans say."""

import numpy as np
import pytest

from edge_coordinator.experiments.exhaustive import best_round_s
from edge_coordinator.planning.bound.lower_bound import bound_reason, lower_bound_s
from edge_coordinator.planning.clusters.clustering import (
    default_schedule,
    gibbs_clusters,
    random_clusters,
    sorted_clusters,
)
from edge_coordinator.planning.clusters.grouping import Grouping, cluster_sizes
from edge_coordinator.planning.division.pricing import THOROUGH_EXCHANGES, Pricer
from edge_coordinator.planning.form import Method
from edge_coordinator.planning.planner import plan_round
from profiles.link import IndependentLinks, Medium, SharedLink, Subcarriers
from profiles.units import Counts
from tests.fleets import random_devices, random_pricer, workload

MEDIA: list[Medium] = [IndependentLinks(), Subcarriers(12), SharedLink()]
ROUNDING = 1e-9


def drawn(instance: int, num_devices: int) -> tuple[Pricer, int]:
    """Draw a fleet that waits mostly for computing, mostly for the link, or for both."""
    generator = np.random.default_rng(instance)
    devices = random_devices(
        generator,
        num_devices,
        flop_per_s=[1e8, 1e9][instance % 2],
        up_bps=[1e7, 1e6, 3e6][instance // 2 % 3],
        decades=[1.5, 0.4][instance // 6 % 2],
    )
    epochs = [1, 3][instance // 12 % 2]
    pricer = random_pricer(
        *(generator, num_devices), medium=MEDIA[instance % 3], local_epochs=epochs, devices=devices
    )
    return pricer, epochs


def planned(pricer: Pricer, sizes: Counts) -> Counts:
    return gibbs_clusters(
        pricer,
        start=sorted_clusters(pricer, sizes=sizes),
        schedule=default_schedule(int(sizes.sum()), num_clusters=len(sizes), medium=pricer.medium),
        generator=np.random.default_rng(0),
    )


def test_no_round_is_shorter_than_the_bound_whatever_plan_it_starts_from() -> None:
    for instance in range(24):
        num_devices = 3 + instance % 5
        pricer, epochs = drawn(instance, num_devices)
        sizes = cluster_sizes(num_devices, num_clusters=2 + instance % 2)
        generator = np.random.default_rng(instance)
        good = sorted_clusters(pricer, sizes=sizes)
        by_chance = random_clusters(sizes=sizes, generator=generator)
        work = workload(pricer.medium, local_epochs=epochs)
        best_s = best_round_s(pricer, sizes=sizes)
        for members in (good, by_chance):
            bound_s = lower_bound_s(pricer, work, members=members)
            assert 0 < bound_s <= best_s * (1 + ROUNDING)


def test_plans_of_8_to_30_devices_are_within_5_percent_of_their_bound_in_the_median() -> None:
    gaps = []
    for instance in range(12):
        num_devices = [8, 12, 30][instance % 3]
        pricer, epochs = drawn(instance * 7, num_devices)
        members = planned(pricer, cluster_sizes(num_devices, cluster_size=[4, 5][instance % 2]))
        planned_s = pricer.latency_s(members, max_exchanges=THOROUGH_EXCHANGES).sum()
        work = workload(pricer.medium, local_epochs=epochs)
        gaps.append(planned_s / lower_bound_s(pricer, work, members=members) - 1)
    assert min(gaps) >= -ROUNDING
    assert np.median(gaps) < 0.05


@pytest.mark.parametrize("medium", MEDIA)
def test_where_there_is_one_clustering_of_single_devices_the_bound_is_what_it_takes(
    medium: Medium,
) -> None:
    pricer = random_pricer(np.random.default_rng(3), 7, medium=medium)
    members = np.arange(7)[:, np.newaxis]
    alone_s = pricer.latency_s(members, max_exchanges=0).sum()
    assert lower_bound_s(pricer, workload(medium), members=members) == pytest.approx(alone_s)


@pytest.mark.parametrize("method", ["cpsl", "sl", "fl", "cl"])
def test_a_plan_carries_its_bound_and_says_how_far_from_it_it_is_at_the_most(
    method: Method,
) -> None:
    plan = plan_round(
        random_devices(np.random.default_rng(4), 9),
        workload(SharedLink(), loss_on_device=method == "fl"),
        grouping=Grouping(method, cluster_size=3),
        cut=None,
        generator=np.random.default_rng(0),
    )
    assert plan.predicted_s is not None
    assert plan.lower_bound_s is not None
    assert plan.lower_bound_s <= plan.predicted_s
    assert plan.reason.endswith(
        bound_reason(plan.predicted_s, bound_s=plan.lower_bound_s, given="this cut")
    )
    assert "% of the best possible at this cut" in plan.reason


def test_how_far_a_plan_may_be_from_the_best_is_rounded_up() -> None:
    assert (
        bound_reason(1.0421, bound_s=1.0, given="this cut")
        == ", within 4.3 % of the best possible at this cut"
    )
    assert (
        bound_reason(1.121, bound_s=1.0, given="this cut")
        == ", within 13 % of the best possible at this cut"
    )
    assert (
        bound_reason(1.0, bound_s=1.0, given="this cut")
        == ", within 0.0 % of the best possible at this cut"
    )
    assert bound_reason(0.0, bound_s=0.0, given="this cut") == ""
