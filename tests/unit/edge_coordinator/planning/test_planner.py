"""Whole plans: who takes part, what is predicted, and what it is compared with."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.cuts.cut_layer import CutChoice
from edge_coordinator.planning.fleet import device_memory_bytes
from edge_coordinator.planning.form import Method
from edge_coordinator.planning.plan import ClusterPlan, Plan
from edge_coordinator.planning.planner import plan_round
from profiles.corrections import phase_array
from profiles.device import DeviceState
from profiles.link import IndependentLinks, Medium, Subcarriers
from tests.fleets import CUTS, device, random_devices, workload

PAIRS = Grouping("cpsl", cluster_size=2)


def plan(
    devices: Sequence[DeviceState],
    *,
    grouping: Grouping = PAIRS,
    cut: CutChoice | int | None = None,
    medium: Medium | None = None,
) -> Plan:
    return plan_round(
        devices,
        workload(medium or IndependentLinks()),
        grouping=grouping,
        cut=cut,
        generator=np.random.default_rng(0),
    )


def test_whoever_cannot_take_part_is_left_out_with_the_reason() -> None:
    needed_bytes = device_memory_bytes(workload(IndependentLinks()))
    made = plan(
        [
            device("fine"),
            replace(device("mute"), link=None),
            replace(device("new"), compute=None),
            replace(device("empty"), num_samples=0),
            replace(device("tiny"), free_memory_bytes=needed_bytes[1] / 2),
        ]
    )
    assert [cluster.devices for cluster in made.clusters] == [("fine",)]
    assert dict(made.left_out) == {
        "empty": "holds no samples",
        "mute": "no measurement of its link",
        "new": "no measurement of its compute speed",
        "tiny": "the smallest device side needs 0.532 MB, 0.266 MB are free",
    }


def test_a_plan_for_nobody_has_no_clusters_and_says_why() -> None:
    made = plan([replace(device("mute"), link=None)])
    assert made.clusters == ()
    assert made.reason == "no device can take part"
    assert made.left_out["mute"] == "no measurement of its link"


def test_with_memory_for_a_shallow_cut_only_a_device_takes_part_unless_the_cut_is_given() -> None:
    needed_bytes = device_memory_bytes(workload(IndependentLinks()))
    shallow = replace(device("shallow"), free_memory_bytes=(needed_bytes[1] + needed_bytes[2]) / 2)
    assert plan([shallow, device("deep")]).cut == 1
    assert plan([shallow, device("deep")], cut=3).left_out.keys() == {"shallow"}


def test_the_predicted_round_is_the_sum_of_its_clusters_and_these_of_their_phases() -> None:
    made = plan(random_devices(np.random.default_rng(1), 5), medium=Subcarriers(10))
    for cluster in made.clusters:
        assert sum(cluster.shares) == pytest.approx(1.0)
        phases = np.array([phase_array(each) for each in cluster.phases]).T
        distribute_s, forward_s, upload_s, server_s, download_s, backward_s, model_s = phases
        assert cluster.predicted_s == pytest.approx(
            distribute_s.max()
            + (forward_s + upload_s).max()
            + server_s.sum()
            + (download_s + backward_s + model_s).max()
        )
    assert made.predicted_s == pytest.approx(sum(each.predicted_s or 0 for each in made.clusters))


def test_a_plan_says_what_it_was_chosen_over() -> None:
    made = plan(random_devices(np.random.default_rng(2), 12), medium=Subcarriers(10))
    other = made.alternatives
    assert other is not None
    assert made.predicted_s is not None
    assert made.predicted_s <= other.sorted_clusters_s
    assert made.predicted_s < other.random_clusters_s < other.random_equal_shares_s
    assert other.next_best_cut is not None
    assert {price.cut for price in other.cuts} == {1, 2, 3}
    assert f"at cut {other.next_best_cut.cut} (after {other.next_best_cut.name})" in made.reason


def test_an_earlier_choice_of_the_cut_is_kept_with_its_prices() -> None:
    devices = random_devices(np.random.default_rng(3), 4)
    first = plan(devices)
    assert first.alternatives is not None
    choice = CutChoice(first.cut, first.alternatives.cuts)
    slower = [replace(devices[0], num_samples=50), *devices[1:]]
    second = plan(slower, cut=choice)
    assert second.cut == first.cut
    assert second.alternatives is not None
    assert second.alternatives.cuts == first.alternatives.cuts


@pytest.mark.parametrize(
    ("method", "cuts", "sizes"),
    [
        ("sl", {1, 2, 3}, [1, 1, 1, 1]),
        ("fl", {CUTS.num_layers}, [4]),
        ("cl", {0}, [4]),
        ("cpsl", {1, 2, 3}, [2, 2]),
    ],
)
def test_each_method_is_a_choice_of_plan(method: Method, cuts: set[int], sizes: list[int]) -> None:
    devices = [device(name) for name in "abcd"]
    made = plan(devices, grouping=Grouping(method, cluster_size=2))
    assert made.cut in cuts
    assert [len(cluster.devices) for cluster in made.clusters] == sizes


def test_a_link_ten_times_slower_moves_the_device_to_another_cluster() -> None:
    devices = [device(f"d{k}", flop_per_s=1e8 * (k + 1)) for k in range(6)]
    grouping = Grouping("cpsl", num_clusters=2)
    before = plan(devices, grouping=grouping, cut=2)
    slowed = [*devices[:5], device("d5", flop_per_s=6e8, up_bps=2e5)]
    after = plan(slowed, grouping=grouping, cut=2)
    assert ("d3", "d4", "d5") in {cluster.devices for cluster in before.clusters}
    assert ("d0", "d1", "d5") in {cluster.devices for cluster in after.clusters}


def test_plans_do_not_depend_on_the_order_in_which_devices_are_listed() -> None:
    devices = random_devices(np.random.default_rng(4), 9)
    assert plan(devices) == plan(devices[::-1])


def test_only_clusters_of_devices_whose_data_grow_say_how_many_samples_they_have() -> None:
    clusters = (ClusterPlan(("a", "b"), (1.0, 1.0)), ClusterPlan(("c",), (1.0,)))
    plan = Plan(2, clusters).with_samples({"b": 7})
    assert [each.num_samples for each in plan.clusters] == [(0, 7), ()]
    assert plan.counts == {"b": 7}
