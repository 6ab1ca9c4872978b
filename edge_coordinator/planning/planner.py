"""The plan of a round: who can take part, where to cut, who with whom, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from edge_coordinator.planning.alternatives import (
    cuts_reason,
    own_reason,
    parting_reason,
    phi_reason,
    price_alternatives,
    reason_of,
)  # fmt: skip
from edge_coordinator.planning.batch_shares import (
    planned_sizes,
    sharing_reason,
)  # fmt: skip
from edge_coordinator.planning.bound.lower_bound import bound_reason, given_choices
from edge_coordinator.planning.bound.round_bound import round_bound_s
from edge_coordinator.planning.clusters.clustering import (
    CUT_SCHEDULE,
    GibbsSchedule,
)
from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.cuts.by_device import choose_cuts
from edge_coordinator.planning.cuts.cut_layer import CutChoice, choose_cut
from edge_coordinator.planning.energy import with_energy, with_joules
from edge_coordinator.planning.fleet import Fleet, Workload, leave_out
from edge_coordinator.planning.joint.formed import Formed, cluster_plans, form_round
from edge_coordinator.planning.joint.starts import RoundStart
from edge_coordinator.planning.latency import phase_seconds
from edge_coordinator.planning.micro_batches import (
    Flows,
    smallest_of,
)
from edge_coordinator.planning.plan import Alternatives, ClusterPlan, Plan, StepFlow
from profiles.device import DeviceState


def plan_round(
    devices: Sequence[DeviceState],
    workload: Workload,
    *,
    grouping: Grouping,
    cut: CutChoice | int | None,
    generator: np.random.Generator,
    schedule: GibbsSchedule | None = None,
) -> Plan:
    """Plan one round for the devices as they are now.

    `cut` is an earlier choice, a fixed cut, or None to choose for the present state. Without
    a schedule the budget follows the number of devices. If nobody can take part, the plan has no
    clusters.
    """
    candidates = grouping.candidate_cuts(workload.cuts.num_layers)
    own: Mapping[str, int] = {}
    if cut is not None:
        cut = cut if isinstance(cut, CutChoice) else CutChoice(cut, prices=())
        candidates, own = range(cut.cut, cut.cut + 1), cut.own
    asked = workload.of_each_device() if grouping.cuts_by_device else workload
    left_out = leave_out(devices, asked, candidates=candidates, own_cuts=own)
    present = [state for state in devices if state.device not in left_out]
    fleet = Fleet.of(present)
    if fleet.num_devices == 0:
        return Plan(candidates[0], (), left_out, "no device can take part")
    if cut is None:
        choose = choose_cuts if grouping.cuts_by_device else choose_cut
        cut = choose(
            [fleet], workload, sizes=grouping.sizes(fleet.num_devices), candidates=candidates,
            schedule=CUT_SCHEDULE, generator=generator, own=grouping.choose_cut, devices=present,
        )  # fmt: skip
    fleet = fleet.cut_at(cut.cut, cut.own)
    plan = _plan(
        fleet, workload.at_cuts(fleet.cuts_by(cut.cut)), cut, left_out,
        devices=present, grouping=grouping, schedule=schedule, generator=generator,
    )  # fmt: skip
    return with_energy(plan, devices, workload)


def price_plan(devices: Sequence[DeviceState], workload: Workload, plan: Plan) -> Plan:
    """Predict the seconds of clusters and a cut that are given, the link divided within each.

    `devices` are at least those of the plan, each measured.
    """
    workload = replace(workload, chosen=plan.codecs)
    cuts = plan.cuts
    fleet = Fleet.of([state for state in devices if state.device in cuts]).cut_at(plan.cut, cuts)
    rows = {device: row for row, device in enumerate(fleet.devices)}
    batch_sizes = planned_sizes(plan, rows, batch_size=workload.batch_size)
    members = [np.array([[rows[d] for d in each.devices]]) for each in plan.clusters]
    smallest = smallest_of(chain.from_iterable(members), batch_sizes)
    flows = Flows(fleet, workload, plan.cut, batch_sizes, smallest)
    clusters = tuple(
        cluster
        for each, row in zip(plan.clusters, members, strict=True)
        for cluster in cluster_plans(
            flows,
            row,
            is_shared_out=bool(each.batch_sizes),
            among=[_flow_of(each, workload)],
        )
    )
    predicted_s = sum(each.predicted_s or 0.0 for each in clusters) + workload.round_overhead_s
    priced = replace(plan, clusters=clusters, predicted_s=predicted_s).cut_at(plan.own_cuts)
    return with_joules(priced, devices, workload)


def _flow_of(cluster: ClusterPlan, workload: Workload) -> StepFlow:
    """How the mini-batches of a cluster travel, whose plan is given."""
    (count,) = replace(workload, micro_batches=(cluster.micro_batches,)).partings
    return StepFlow(count, (cluster.phi or 0.0) if workload.phis else workload.phi)


def _plan(
    fleet: Fleet,
    workload: Workload,
    choice: CutChoice,
    left_out: Mapping[str, str],
    *,
    devices: Sequence[DeviceState],
    grouping: Grouping,
    schedule: GibbsSchedule | None,
    generator: np.random.Generator,
) -> Plan:
    """Cluster the devices that take part and write down why."""
    cut = choice.cut
    start, formed, equal = form_round(
        fleet, workload, cut=cut, grouping=grouping,
        devices=devices, schedule=schedule, generator=generator,
    )  # fmt: skip
    workload = start.workload
    parted = max(cluster.micro_batches for cluster in equal.clusters)
    priced = phase_seconds(fleet, workload, cut=cut, micro_batches=parted)
    alternatives = price_alternatives(
        equal.pricer, priced, workload, choice, start=equal.start, generator=generator
    )
    bound_s = round_bound_s(formed)
    given = given_choices(workload, fleet.cuts_by(cut))
    reason = _reason(start, choice, grouping, formed, equal, other=alternatives)
    return Plan(
        cut=cut,
        clusters=formed.clusters,
        left_out=left_out,
        reason=reason + bound_reason(formed.predicted_s, bound_s=bound_s, given=given),
        predicted_s=formed.predicted_s, lower_bound_s=min(bound_s, formed.predicted_s),
        alternatives=alternatives, codecs=workload.chosen,
    ).cut_at(choice.own)  # fmt: skip


def _reason(
    start: RoundStart,
    choice: CutChoice,
    grouping: Grouping,
    formed: Formed,
    equal: Formed,
    *,
    other: Alternatives,
) -> str:
    """Say what was chosen, over what, and what each choice saves; `equal` is with equal batches."""
    workload, clusters, cut = start.workload, formed.clusters, choice.cut
    reason = reason_of(
        cut, workload, formed.predicted_s, other, grouping.method, saved_s=start.saved_s,
        is_shared_out=any(each.batch_sizes for each in clusters),
    )  # fmt: skip
    reason += cuts_reason(formed.flows.fleet, workload, choice)
    reason += own_reason(choice, grouping.form, grouping.choose_cut, grouping.method)
    reason += parting_reason(clusters, workload)
    reason += phi_reason(clusters, formed.flows, formed.members)
    saved_s = equal.predicted_s - formed.predicted_s
    return reason + sharing_reason(clusters, workload, cut=cut, saved_s=saved_s)
