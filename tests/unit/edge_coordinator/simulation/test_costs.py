"""What a simulated round computes and carries, by the table of costs."""

from dataclasses import replace

import numpy as np
import pytest

from edge_coordinator.planning.plan import ClusterPlan, Plan
from edge_coordinator.planning.planner import price_plan
from edge_coordinator.simulation.costs import RoundCosts, round_costs
from profiles.link import IndependentLinks
from tests.fleets import device, workload

CUTS, SIZES = (1, 3), (4, 28)


def costs(local_epochs: int, cuts: tuple[int, ...], sizes: tuple[int, ...] = ()) -> RoundCosts:
    work = workload(IndependentLinks(), local_epochs=local_epochs)
    names = tuple("ab"[: len(cuts)])
    own = ClusterPlan(names, (1.0,) * len(cuts), batch_sizes=sizes, cuts=cuts)
    states = [replace(device(name), num_samples=1000) for name in names]
    return round_costs(price_plan(states, work, Plan(cuts[0], (own,))), work)


def test_a_round_is_counted_by_the_samples_that_each_device_has_where_it_cuts() -> None:
    found = np.zeros(3)
    for cut, size in zip(CUTS, SIZES, strict=True):
        one, two = costs(1, (cut,)), costs(2, (cut,))
        found += [
            one.table_up_bytes + (size / 16 - 1) * (two.table_up_bytes - one.table_up_bytes),
            one.table_down_bytes + (size / 16 - 1) * (two.table_down_bytes - one.table_down_bytes),
            size / 16 * one.device_flop / 2,
        ]
    mixed = costs(1, CUTS, SIZES)
    counted = (mixed.table_up_bytes, mixed.table_down_bytes, mixed.device_flop)
    assert counted == pytest.approx(tuple(found))
