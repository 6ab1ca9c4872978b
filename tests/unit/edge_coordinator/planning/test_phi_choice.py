"""Plans that choose which share of gradients is aggregated: for each cluster, and with all else."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.cuts.cut_layer import CutChoice
from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.micro_batches import gain_asked
from edge_coordinator.planning.plan import ClusterPlan, Plan, StepFlow
from edge_coordinator.planning.planner import plan_round, price_plan
from edge_coordinator.planning.wire import WireTable
from profiles.device import DeviceState
from profiles.link import IndependentLinks, Medium, SharedLink, Subcarriers
from profiles.power import POWER
from runtime.wire.codecs.names import TurnCodecs
from tests.fleets import CUTS, device, partitions, random_devices, workload

CUT = 2
PHIS = (0.0, 0.25, 0.5)


def choosing(medium: Medium, **changed: object) -> Workload:
    return replace(workload(medium, local_epochs=2), phis=PHIS, **changed)  # type: ignore[arg-type]


def plan_of(states: list[DeviceState], work: Workload, *, num_clusters: int = 2) -> Plan:
    return plan_round(
        states,
        work,
        grouping=Grouping("cpsl", num_clusters=num_clusters),
        cut=CUT,
        generator=np.random.default_rng(0),
    )


def turn_s(states: list[DeviceState], work: Workload, plan: Plan, own: ClusterPlan) -> float:
    """Seconds of one cluster's turn alone, in the job's one flow."""
    (flow,) = work.flows(CUT)
    alone = ClusterPlan(own.devices, own.shares, micro_batches=flow.micro_batches)
    work = replace(work, round_overhead_s=0.0)
    predicted_s = price_plan(states, work, Plan(CUT, (alone,), codecs=plan.codecs)).predicted_s
    assert predicted_s is not None
    return predicted_s


def given(work: Workload, flow: StepFlow) -> Workload:
    return replace(work, phis=(), phi=flow.phi, micro_batches=(flow.micro_batches,))


@pytest.mark.parametrize("medium", [IndependentLinks(), Subcarriers(12), SharedLink()])
def test_each_cluster_takes_what_saves_enough_and_says_how_much(medium: Medium) -> None:
    chosen = set()
    for seed in range(6):
        generator = np.random.default_rng(seed)
        states = random_devices(generator, 8, up_bps=[1e6, 1e7][seed % 2], decades=1.0)
        work = choosing(medium, micro_batches=[(1,), (1, 4)][seed // 2 % 2])
        plan = plan_of(states, work)
        for own in plan.clusters:
            took = {f: turn_s(states, given(work, f), plan, own) for f in work.flows(CUT)}
            best = min(took, key=lambda flow: took[flow] * (1 + gain_asked(flow)))
            assert (own.micro_batches, own.phi) == best
            assert own.predicted_s == pytest.approx(took[best])
            if own.phi:
                assert own.plain_s == pytest.approx(took[StepFlow(own.micro_batches, 0.0)])
            chosen.add(own.phi)
    assert chosen == {0.0} if medium == IndependentLinks() else chosen >= {0.0, 0.5}


def test_the_codec_and_the_share_are_those_that_are_best_together() -> None:
    """Where gradients travel coarsely there is little left to aggregate."""
    wires = tuple(
        WireTable.of(CUTS, TurnCodecs(smashed="int8", gradient=name), batch_size=16)
        for name in ("fp32", "int8")
    )
    found = set()
    for bps, pace in product((3e5, 3e6, 3e7), (1e8, 1e9)):
        states = [device(f"d{k}", up_bps=bps, down_bps=bps, flop_per_s=pace) for k in range(6)]
        work = choosing(SharedLink(), wires=wires, micro_batches=(1, 2))
        plan = plan_of(states, work)
        costs = {}
        for wire, flow in product(wires, work.flows(CUT)):
            alone = plan_of(states, replace(given(work, flow), wires=(wire,)))
            assert alone.predicted_s is not None
            costs[wire.codecs, flow] = alone.predicted_s * (1 + gain_asked(flow))
        codecs, flow = min(costs, key=lambda each: costs[each])
        assert plan.codecs == codecs
        assert {(c.micro_batches, c.phi) for c in plan.clusters} == {flow}
        found.add((plan.codecs.gradient, flow.phi > 0, flow.micro_batches))
    assert len(found) > 1


@pytest.mark.parametrize("medium", [Subcarriers(12), SharedLink()])
def test_no_round_is_shorter_than_the_bound_whatever_its_clusters_aggregate(medium: Medium) -> None:
    for seed in range(4):
        states = random_devices(np.random.default_rng(seed), 5, up_bps=1e6, decades=1.0)
        work = choosing(medium)
        plan = plan_of(states, work)
        names = [state.device for state in states]
        rounds_s = []
        for groups in partitions((3, 2)):
            taken = 0.0
            for group in groups:
                own = ClusterPlan(tuple(names[each] for each in group), (1.0,) * len(group))
                flows = [given(work, flow) for flow in work.flows(CUT)]
                taken += min(turn_s(states, each, plan, own) for each in flows)
            rounds_s.append(taken)
        assert plan.lower_bound_s is not None
        assert 0.8 * min(rounds_s) <= plan.lower_bound_s <= min(rounds_s) * (1 + 1e-9)


def test_joules_count_where_the_job_weighs_them() -> None:
    """The radio is what is dear: what is not sent to each by itself is worth its joules."""
    thirsty = replace(POWER["raspberry-pi-4"], idle_w=0.0, compute_w=0.0, radio_w=1e3)
    states = [
        replace(device(f"d{k}", up_bps=3e7, down_bps=3e7, flop_per_s=1e8), power=thirsty)
        for k in range(4)
    ]
    work = choosing(SharedLink())
    assert {own.phi for own in plan_of(states, work).clusters} == {0.0}
    weighed = plan_of(states, replace(work, energy_weight=1.0))
    assert {own.phi for own in weighed.clusters} == {0.5}


def test_where_nothing_can_be_aggregated_the_plan_says_why() -> None:
    states = random_devices(np.random.default_rng(0), 4, up_bps=1e6)
    plan = plan_of(states, choosing(SharedLink(), plain_cuts={CUT: "a layer looks at all"}))
    assert {own.phi for own in plan.clusters} == {0.0}
    assert "; phi stays 0: a layer looks at all" in plan.reason
    alone = plan_of(states, choosing(SharedLink()), num_clusters=4)
    assert {own.phi for own in alone.clusters} == {0.0}
    assert "; phi stays 0: it saves less than 2% of any turn for each quarter" in alone.reason


def test_only_clusters_that_cut_alike_aggregate_and_at_their_own_cut() -> None:
    states = [device(f"d{k}", up_bps=1e6, down_bps=1e6, flop_per_s=1e9) for k in range(6)]
    plan = plan_round(
        states,
        choosing(SharedLink()),
        grouping=Grouping("cpsl", num_clusters=3, form="by_id"),
        cut=CutChoice(CUT, (), {"d3": 1, "d4": 1, "d5": 1}),
        generator=np.random.default_rng(0),
    )
    alike, mixed, others = plan.clusters
    assert (alike.phi, mixed.phi, others.phi) == (0.5, 0.0, 0.5)
    alone = plan_round(
        states[4:],
        choosing(SharedLink()),
        grouping=Grouping("cpsl", num_clusters=1),
        cut=1,
        generator=np.random.default_rng(0),
    )
    assert others.predicted_s == pytest.approx(alone.predicted_s)
    refusing = choosing(SharedLink(), plain_cuts={1: "a layer looks at all"})
    at_plain = plan_round(
        states,
        refusing,
        grouping=Grouping("cpsl", num_clusters=3, form="by_id"),
        cut=CutChoice(CUT, (), {"d4": 1, "d5": 1}),
        generator=np.random.default_rng(0),
    )
    assert [own.phi for own in at_plain.clusters] == [0.5, 0.5, 0.0]
    split = plan_round(
        states[:2],
        choosing(SharedLink()),
        grouping=Grouping("cpsl", num_clusters=1),
        cut=CutChoice(CUT, (), {"d1": 1}),
        generator=np.random.default_rng(0),
    )
    assert "; phi stays 0: in no cluster do all devices cut at one layer" in split.reason


@pytest.mark.parametrize("cuts", ["auto", "by_device"])
def test_shares_are_chosen_where_samples_are_shared_out_and_some_devices_are_alone(
    cuts: str,
) -> None:
    """Four devices in three clusters: a swap with an empty place leaves a cluster of nobody."""
    states = random_devices(np.random.default_rng(0), 4, decades=1.5)
    work = choosing(IndependentLinks(), batch_sizes="by_speed", micro_batches=(1, 2))
    grouping = Grouping("cpsl", num_clusters=3, cuts_by_device=cuts == "by_device")
    plan = plan_round(states, work, grouping=grouping, cut=None, generator=np.random.default_rng(0))
    assert sorted(len(cluster.devices) for cluster in plan.clusters) == [1, 1, 2]
