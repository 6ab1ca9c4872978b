"""Joules of a plan: as counted by hand, and weighed where cuts are chosen."""

from dataclasses import replace

import numpy as np
import pytest

from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.plan import Plan
from edge_coordinator.planning.planner import plan_round
from profiles.device import DeviceState
from profiles.link import IndependentLinks
from profiles.phases import Phase
from profiles.power import POWER, Power, class_of_machine
from tests.fleets import device, random_devices, workload

ALONE = Grouping("sl")
RADIO = Power(idle_w=0.1, compute_w=0.5, radio_w=50.0)


def planned(devices: list[DeviceState], *, weight: float = 0.0, cut: int | None = None) -> Plan:
    work = replace(workload(IndependentLinks(), local_epochs=2), energy_weight=weight)
    generator = np.random.default_rng(0)
    return plan_round(devices, work, grouping=ALONE, cut=cut, generator=generator)


def test_a_device_draws_idle_watts_all_the_round_and_more_while_it_computes_or_sends() -> None:
    power = Power(idle_w=2.0, compute_w=3.0, radio_w=5.0)
    first, second = replace(device("a"), power=power), device("b", flop_per_s=1e7)
    made = planned([first, second], cut=2)
    (phases,) = next(each.phases for each in made.clusters if each.devices == ("a",))
    compute_s = 2 * (phases[Phase.FORWARD] + phases[Phase.BACKWARD])
    radio_s = 2 * (phases[Phase.UPLOAD] + phases[Phase.DOWNLOAD])
    radio_s += phases[Phase.DISTRIBUTE] + phases[Phase.MODEL_UPLOAD]
    assert made.predicted_s is not None
    expected_j = 2.0 * made.predicted_s + 3.0 * compute_s + 5.0 * radio_s
    assert made.joules == {"a": pytest.approx(expected_j)}, "nobody knows what b draws"


@pytest.mark.parametrize("weight", [0.0, 0.01, 1.0, 100.0])
def test_the_cut_is_that_of_the_fewest_seconds_and_weighed_joules(weight: float) -> None:
    devices = [replace(each, power=RADIO) for each in random_devices(np.random.default_rng(2), 3)]
    at_cut = {cut: planned(devices, cut=cut) for cut in (1, 2, 3)}
    costs = {
        cut: (each.predicted_s or 0.0) + weight * sum(each.joules.values())
        for cut, each in at_cut.items()
    }
    chosen = planned(devices, weight=weight)
    assert chosen.cut == min(costs, key=lambda cut: costs[cut])
    assert ("draw" in chosen.reason) == (weight > 0)


def test_joules_change_the_cut_where_radios_are_dear() -> None:
    dear = Power(idle_w=0.0, compute_w=0.0, radio_w=50.0)
    devices = [replace(device("a", flop_per_s=1e6, up_bps=1e9, down_bps=1e9), power=dear)]
    by_seconds, by_joules = planned(devices), planned(devices, weight=100.0)
    assert (by_seconds.cut, by_joules.cut) == (1, 2)
    assert sum(by_joules.joules.values()) < sum(by_seconds.joules.values())


def test_a_processor_that_is_no_pcs_counts_as_a_boards() -> None:
    assert [class_of_machine(each) for each in ("x86_64", "AMD64", "aarch64", "")] == [
        *["laptop"] * 2,
        *["raspberry-pi-4"] * 2,
    ]
    assert all(each.idle_w > 0 for each in POWER.values())
