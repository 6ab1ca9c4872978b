"""The plan of a round: who can take part, where to cut, who with whom, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from edge_coordinator.planning.alternatives import price_alternatives, reason_of
from edge_coordinator.planning.clustering import (
    GibbsSchedule,
    clusters_by_id,
    default_schedule,
    gibbs_clusters,
    in_order,
    random_clusters,
    sorted_clusters,
)
from edge_coordinator.planning.cut_layer import CutChoice, choose_cut, device_memory_bytes
from edge_coordinator.planning.fleet import Fleet, Workload, cluster_sizes
from edge_coordinator.planning.form import Form, Method
from edge_coordinator.planning.latency import (
    device_phase_s,
    phase_seconds,
)
from edge_coordinator.planning.lower_bound import bound_reason
from edge_coordinator.planning.micro_batches import (
    choose_parting,
    parting_reason,
    round_bound_s,
)
from edge_coordinator.planning.plan import ClusterPlan, Plan
from edge_coordinator.planning.pricing import THOROUGH_EXCHANGES, Pricer
from edge_coordinator.planning.spectrum import equal_shares
from edge_coordinator.planning.wire_choice import choose_wire
from profiles.corrections import by_phase
from profiles.device import DeviceState
from profiles.units import Counts

CUT_SCHEDULE = GibbsSchedule(num_sweeps=10, num_chains=4, warm=0.2, cool=0.02, coldest=0.001)
"""Enough to compare two cuts by: their clusters are not used."""


@dataclass(frozen=True)
class Grouping:
    """What the user decides about clusters: their number or their size, and what counts."""

    method: Method
    num_clusters: int | None = None
    cluster_size: int | None = None
    """The most devices in a cluster; wins over `num_clusters`."""
    balance_weight: float = 0.0
    """How much slower a cluster counts whose labels have nothing in common with the whole."""
    form: Form = "planned"
    equal_shares: bool = False
    """Divide a shared link evenly, to compare with."""

    def sizes(self, num_devices: int) -> Counts:
        """Size the clusters: of one device (sl), of all (fl, cl) or as asked for (cpsl)."""
        if self.method == "sl":
            return cluster_sizes(num_devices, cluster_size=1)
        if self.method in {"fl", "cl"}:
            return cluster_sizes(num_devices, num_clusters=1)
        return cluster_sizes(
            num_devices, num_clusters=self.num_clusters, cluster_size=self.cluster_size
        )

    def candidate_cuts(self, num_layers: int) -> range:
        """List the cuts that are the method's: one for fl and cl, all inner ones otherwise."""
        match self.method:
            case "fl":
                return range(num_layers, num_layers + 1)
            case "cl":
                return range(1)
            case _:
                return range(1, num_layers)


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
    if cut is not None:
        cut = cut if isinstance(cut, CutChoice) else CutChoice(cut, prices=())
        candidates = range(cut.cut, cut.cut + 1)
    left_out = leave_out(devices, workload, candidates=candidates)
    fleet = Fleet.of([state for state in devices if state.device not in left_out])
    if fleet.num_devices == 0:
        return Plan(candidates[0], (), left_out, "no device can take part")
    if cut is None:
        cut = choose_cut(
            [fleet],
            workload,
            sizes=grouping.sizes(fleet.num_devices),
            candidates=candidates,
            schedule=CUT_SCHEDULE,
            generator=generator,
        )
    return _plan(
        fleet, workload, cut, left_out, grouping=grouping, schedule=schedule, generator=generator
    )


def price_plan(devices: Sequence[DeviceState], workload: Workload, plan: Plan) -> Plan:
    """Predict the seconds of clusters and a cut that are given, the link divided within each.

    `devices` are at least those of the plan, each measured.
    """
    workload = replace(workload, chosen=plan.codecs)
    planned = {device for cluster in plan.clusters for device in cluster.devices}
    fleet = Fleet.of([state for state in devices if state.device in planned])
    rows = {device: row for row, device in enumerate(fleet.devices)}
    seconds = phase_seconds(fleet, workload, cut=plan.cut)
    pricer = Pricer(seconds, workload.medium, fleet.label_mix, balance_weight=0.0)
    clusters = tuple(
        _cluster_plan(
            fleet,
            pricer,
            np.array([rows[d] for d in each.devices]),
            replace(workload, micro_batches=(each.micro_batches,)),
            cut=plan.cut,
            equal=False,
        )
        for each in plan.clusters
    )
    predicted_s = sum(each.predicted_s or 0.0 for each in clusters) + workload.round_overhead_s
    return replace(plan, clusters=clusters, predicted_s=predicted_s)


def leave_out(
    devices: Sequence[DeviceState], workload: Workload, *, candidates: Sequence[int]
) -> dict[str, str]:
    """Give the reason for each device that cannot take part at any of the candidate cuts."""
    usable = [cut for cut in candidates if cut not in workload.refused_cuts] or list(candidates)
    needed_bytes, shallowest = device_memory_bytes(workload)[usable].min(), min(usable)
    reasons = {}
    for state in sorted(devices, key=lambda each: each.device):
        if state.num_samples == 0:
            reasons[state.device] = "holds no samples"
        elif state.compute is None:
            reasons[state.device] = "no measurement of its compute speed"
        elif state.link is None:
            reasons[state.device] = "no measurement of its link"
        elif needed_bytes > state.free_memory_bytes:
            reasons[state.device] = (
                f"the smallest device side needs {needed_bytes / 1e6:.3g} MB, "
                f"{state.free_memory_bytes / 1e6:.3g} MB are free"
            )
        elif state.deepest_cut is not None and state.deepest_cut < shallowest:
            reasons[state.device] = f"cannot run {shallowest} layers: {state.why_no_deeper}"
        elif (least := state.shallowest_cut) > max(usable):
            reasons[state.device] = f"its owner lets nothing out before {least} layers"
    return reasons


def _plan(
    fleet: Fleet,
    workload: Workload,
    choice: CutChoice,
    left_out: Mapping[str, str],
    *,
    grouping: Grouping,
    schedule: GibbsSchedule | None,
    generator: np.random.Generator,
) -> Plan:
    """Cluster the devices that take part and write down why."""
    sizes = grouping.sizes(fleet.num_devices)
    workload = choose_wire(fleet, workload, cut=choice.cut, sizes=sizes)
    seconds = phase_seconds(fleet, workload, cut=choice.cut)
    pricer = Pricer(seconds, workload.medium, fleet.label_mix, grouping.balance_weight)
    start = sorted_clusters(pricer, sizes=sizes)
    schedule = schedule or default_schedule(
        fleet.num_devices, num_clusters=len(start), medium=workload.medium
    )
    members = _formed(pricer, grouping.form, start=start, schedule=schedule, generator=generator)
    make = partial(_cluster_plan, fleet, pricer, workload=workload, cut=choice.cut)
    clusters = tuple(make(row[row >= 0], equal=grouping.equal_shares) for row in members)
    parted = max(cluster.micro_batches for cluster in clusters)
    priced = phase_seconds(fleet, workload, cut=choice.cut, micro_batches=parted)
    alternatives = price_alternatives(
        pricer, priced, workload, choice, start=start, generator=generator
    )
    predicted_s = sum(each.predicted_s or 0.0 for each in clusters) + workload.round_overhead_s
    bound_s = round_bound_s(fleet, pricer, workload, cut=choice.cut, members=members)
    reason = reason_of(choice.cut, workload, predicted_s, alternatives, grouping.method)
    reason += parting_reason(clusters, workload)
    return Plan(
        cut=choice.cut,
        clusters=clusters,
        left_out=left_out,
        reason=reason + bound_reason(predicted_s, bound_s=bound_s),
        predicted_s=predicted_s,
        lower_bound_s=min(bound_s, predicted_s),
        alternatives=alternatives,
        codecs=workload.chosen,
    )


def _formed(
    pricer: Pricer,
    form: Form,
    *,
    start: Counts,
    schedule: GibbsSchedule,
    generator: np.random.Generator,
) -> Counts:
    """Cluster the devices as asked for, [cluster, position]; `start` is sorted."""
    sizes = (start >= 0).sum(axis=-1)
    match form:
        case "planned":
            return gibbs_clusters(pricer, start=start, schedule=schedule, generator=generator)
        case "sorted":
            return in_order(start)
        case "random":
            return in_order(random_clusters(sizes=sizes, generator=generator))
        case "by_id":
            return clusters_by_id(sizes=sizes)


def _cluster_plan(
    fleet: Fleet, pricer: Pricer, members: Counts, workload: Workload, *, cut: int, equal: bool
) -> ClusterPlan:
    """Write down one cluster; members are [position], all present."""
    if equal:
        shares = equal_shares(present=members >= 0, medium=pricer.medium)
    else:
        shares = pricer.shares(members, max_exchanges=THOROUGH_EXCHANGES)
    parting = choose_parting(fleet, workload, cut=cut, members=members, shares=shares)
    phase_s = device_phase_s(parting.seconds, members=members, shares=shares)
    return parting.plan(
        devices=tuple(fleet.devices[member] for member in members),
        shares=tuple(float(share) for share in shares),
        phases=tuple(by_phase(column) for column in phase_s.T),
    )
