"""All that a plan may choose, chosen together: no choice makes a round longer than without it."""

from dataclasses import replace

import numpy as np
import pytest

from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.division.pricing import THOROUGH_EXCHANGES
from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.form import BatchSizes
from edge_coordinator.planning.joint.turn_prices import TurnPrices
from edge_coordinator.planning.plan import Plan
from edge_coordinator.planning.planner import plan_round
from edge_coordinator.planning.wire import WireTable
from profiles.device import DeviceState
from profiles.link import IndependentLinks, Medium, SharedLink, Subcarriers
from runtime.wire.codecs.names import TurnCodecs
from tests.fleets import CUTS, random_devices, workload

MEDIA = [IndependentLinks(), Subcarriers(30), SharedLink()]
SPREADS = (0.5, 1.5, 2.5)
"""Decades between the slowest and the fastest device."""


def everything(medium: Medium) -> Workload:
    """Leave codecs, micro-batches and sizes of mini-batches to the plan."""
    codecs = [TurnCodecs(**dict.fromkeys(TurnCodecs.model_fields, n)) for n in ("fp32", "int8")]
    wires = tuple(WireTable.of(CUTS, each, batch_size=16) for each in codecs)
    work = workload(medium)
    return replace(work, wires=wires, micro_batches=(1, 2, 4, 8), batch_sizes="auto")


def planned(
    devices: list[DeviceState], work: Workload, *, by_device: bool = False, cut: int | None = None
) -> Plan:
    return plan_round(
        devices,
        work,
        grouping=Grouping("cpsl", cluster_size=5, cuts_by_device=by_device),
        cut=cut,
        generator=np.random.default_rng(0),
    )


def seconds(plan: Plan) -> float:
    assert plan.predicted_s is not None
    return plan.predicted_s


@pytest.mark.parametrize("medium", MEDIA)
def test_with_all_left_to_plans_cuts_by_device_make_no_round_clearly_longer(
    medium: Medium,
) -> None:
    """Clusters are sampled for either, with luck of their own."""
    gains, work = [], everything(medium)
    for seed, decades in enumerate(SPREADS * 2):
        devices = random_devices(np.random.default_rng(seed), 10, decades=decades)
        common_s = seconds(planned(devices, work))
        gains.append(common_s / seconds(planned(devices, work, by_device=True)))
    assert min(gains) >= 0.97
    assert np.mean(gains) >= 0.99


@pytest.mark.parametrize("medium", MEDIA)
def test_no_codec_that_was_not_taken_makes_a_shorter_round(medium: Medium) -> None:
    work = everything(medium)
    for seed, decades in enumerate(SPREADS):
        devices = random_devices(np.random.default_rng(seed), 10, decades=decades)
        alone_s = [
            seconds(planned(devices, replace(work, wires=(wire,)), cut=2)) for wire in work.wires
        ]
        assert seconds(planned(devices, work, cut=2)) <= 1.01 * min(alone_s)


@pytest.mark.parametrize("medium", MEDIA)
def test_turns_are_priced_as_plans_price_them(medium: Medium) -> None:
    devices = random_devices(np.random.default_rng(3), 10, decades=1.5)
    both: tuple[tuple[BatchSizes, float], ...] = (("equal", 0.04), ("by_speed", 0.05))
    for sizes, tolerance in both:
        work = replace(everything(medium), batch_sizes=sizes)
        plan, fleet = planned(devices, work, by_device=True), Fleet.of(devices)
        rows = {device: row for row, device in enumerate(fleet.devices)}
        members = np.array([[rows[d] for d in each.devices] for each in plan.clusters])
        cuts = np.array([[plan.cuts[d] for d in each.devices] for each in plan.clusters])
        prices = TurnPrices(
            fleet, replace(work, chosen=plan.codecs), "equal" if sizes == "equal" else "by_speed"
        )
        turns_s = prices.turns_s(members, cuts, max_exchanges=THOROUGH_EXCHANGES)
        said_s = [each.predicted_s for each in plan.clusters]
        assert turns_s == pytest.approx(np.array(said_s), rel=tolerance)


def test_a_plan_says_with_what_it_is_compared_to_the_best_possible() -> None:
    devices = random_devices(np.random.default_rng(2), 10, decades=2.5)
    raw, work = workload(IndependentLinks()), everything(IndependentLinks())
    assert planned(devices, raw).reason.endswith("best possible at this cut")
    assert planned(devices, work).reason.endswith("best possible at this cut with this codec")
    shy = [replace(devices[0], shallowest_cut=3), *devices[1:]]
    plan = planned(shy, raw, by_device=True)
    assert len(set(plan.cuts.values())) > 1
    assert plan.reason.endswith("best possible at these cuts")


def test_of_a_turn_each_device_cuts_where_it_is_said_to() -> None:
    devices = random_devices(np.random.default_rng(0), 4)
    prices = TurnPrices(Fleet.of(devices), workload(IndependentLinks()), "equal")
    members, cuts = np.array([[0, 1], [0, 1], [2, -1]]), np.array([[1, 1], [1, 3], [2, 2]])
    both = prices.turns_s(members, cuts)
    apart = [float(prices.turns_s(members[[k]], cuts[[k]])[0]) for k in range(3)]
    assert both == pytest.approx(apart)
    assert both[0] != both[1]
