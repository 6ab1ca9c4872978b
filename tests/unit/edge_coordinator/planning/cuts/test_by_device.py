"""Cuts by device beside every assignment of cuts that there is."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.cuts.cut_layer import CutChoice
from edge_coordinator.planning.division.pricing import THOROUGH_EXCHANGES, Pricer
from edge_coordinator.planning.fleet import Fleet
from edge_coordinator.planning.latency import phase_seconds
from edge_coordinator.planning.plan import InfeasiblePlanError, Plan
from edge_coordinator.planning.planner import plan_round
from edge_coordinator.replanning.cut_schedule import TwoTimescales
from edge_coordinator.replanning.device_states import KnownDevice
from profiles.device import DeviceState
from profiles.link import IndependentLinks, Medium, SharedLink
from tests.fleets import device, random_devices, workload

CUTS = range(1, 4)


def planned(
    devices: list[DeviceState], medium: Medium, *, clusters: int = 1, by_device: bool = True
) -> Plan:
    return plan_round(
        devices,
        workload(medium, local_epochs=10),
        grouping=Grouping("cpsl", num_clusters=clusters, cuts_by_device=by_device),
        cut=None,
        generator=np.random.default_rng(0),
    )


def best_of_all_s(devices: list[DeviceState], medium: Medium) -> float:
    """Seconds of the best round of one cluster, by every assignment of cuts."""
    fleet, members = Fleet.of(devices), np.arange(len(devices))[np.newaxis]
    rounds = []
    for cuts in product(CUTS, repeat=len(devices)):
        own = dict(zip(fleet.devices, cuts, strict=True))
        seconds = phase_seconds(
            fleet.cut_at(cuts[0], own), workload(medium, local_epochs=10), cut=cuts[0]
        )
        pricer = Pricer(seconds, medium, label_mix=None, balance_weight=0.0)
        rounds.append(float(pricer.latency_s(members, max_exchanges=THOROUGH_EXCHANGES)[0]))
    return min(rounds)


@pytest.mark.parametrize(
    ("medium", "up_bps", "gain"),
    [(IndependentLinks(), 2e6, 1.05), (SharedLink(), 3e7, 1.0)],
    ids=["own", "shared"],
)
def test_cuts_by_device_are_within_a_twentieth_of_the_best_assignment(
    medium: Medium, up_bps: float, gain: float
) -> None:
    gained = []
    for seed in range(8):
        generator = np.random.default_rng(seed)
        devices = random_devices(generator, 4, flop_per_s=1e9, up_bps=up_bps, decades=2.5)
        plan, common = planned(devices, medium), planned(devices, medium, by_device=False)
        assert plan.predicted_s is not None
        assert common.predicted_s is not None
        assert plan.predicted_s <= 1.05 * best_of_all_s(devices, medium)
        assert plan.predicted_s <= common.predicted_s * (1 + 1e-9)
        gained.append(common.predicted_s / plan.predicted_s)
    assert max(gained) >= gain


def test_a_plan_says_what_cuts_by_device_save() -> None:
    devices = random_devices(np.random.default_rng(6), 4, flop_per_s=1e9, up_bps=2e6, decades=2.5)
    plan, common = (planned(devices, IndependentLinks(), by_device=own) for own in (True, False))
    assert len(set(plan.cuts.values())) > 1
    saved_s = (common.predicted_s or 0.0) - (plan.predicted_s or 0.0)
    assert f"which saves {saved_s:.3g} s" in plan.reason


def test_what_one_owner_lets_out_binds_no_other_device() -> None:
    free = [device("d0", flop_per_s=1e10), device("d1"), device("d2")]
    shy = replace(free[0], shallowest_cut=3)
    assert planned(free, IndependentLinks()).cuts == {"d0": 2, "d1": 2, "d2": 2}
    assert planned([shy, *free[1:]], IndependentLinks()).cuts == {"d0": 3, "d1": 2, "d2": 2}


def test_devices_that_have_no_cut_in_common_train_together() -> None:
    low = replace(device("d0"), deepest_cut=1, why_no_deeper="its graphs end there")
    shy = replace(device("d1"), shallowest_cut=3)
    plan = planned([low, shy], IndependentLinks())
    assert plan.cuts == {"d0": 1, "d1": 3}
    assert not plan.left_out


def test_a_cut_that_does_not_fit_a_device_any_more_leaves_it_out_by_name() -> None:
    devices = [device("d0"), replace(device("d1"), free_memory_bytes=1e3)]
    plan = plan_round(
        devices,
        workload(IndependentLinks()),
        grouping=Grouping("cpsl", num_clusters=1, cuts_by_device=True),
        cut=CutChoice(2, (), {"d1": 3}),
        generator=np.random.default_rng(0),
    )
    assert plan.cuts == {"d0": 2}
    assert "the smallest device side needs" in plan.left_out["d1"]


def test_a_cut_that_no_device_may_have_is_nobodys() -> None:
    refused = dict.fromkeys(CUTS, "what it gives is int64")
    with pytest.raises(InfeasiblePlanError, match="what it gives is int64"):
        plan_round(
            [device("d0"), device("d1")],
            replace(workload(IndependentLinks()), refused_cuts=refused),
            grouping=Grouping("cpsl", num_clusters=1, cuts_by_device=True),
            cut=None,
            generator=np.random.default_rng(0),
        )


def test_cuts_are_chosen_at_once_where_a_device_may_not_have_its_own_any_more() -> None:
    grouping = Grouping("cpsl", num_clusters=1, cuts_by_device=True)
    timescales = TwoTimescales(grouping, cut=None, every=5, seed=0)
    work = workload(IndependentLinks())
    devices = [device("d0"), device("d1", flop_per_s=1e10)]

    def plan(round_: int, states: list[DeviceState]) -> tuple[Plan, str]:
        known = [KnownDevice(state, "", {}) for state in states]
        found, schedule = timescales.plan(known, work, round_=round_, lessons=0)
        return found, schedule.why

    before, _ = plan(1, devices)
    _, why = plan(2, devices)
    assert not why
    shy = replace(devices[1], shallowest_cut=3)
    after, why = plan(3, [devices[0], shy])
    assert "d1 its owner lets nothing out before 3 layers" in why
    assert after.cuts == {"d0": before.cuts["d0"], "d1": 3}
