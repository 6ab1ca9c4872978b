"""The clusters of a round, with all that is chosen for them in turn.

The codec is chosen for devices of like finish time together; then clusters are sampled, with their
samples shared out and without; then the codec is chosen again for these, and if it is another one,
clusters are sampled once more for it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from edge_coordinator.planning.batch_shares import (
    LEAST_GAIN,
    Sharing,
    best_start,
    pricer_of,
    shared_sizes,
    sharings,
)
from edge_coordinator.planning.clusters.clustering import (
    CUT_SCHEDULE,
    GibbsSchedule,
    clusters_as,
    default_schedule,
    in_order,
    own_clusters,
)
from edge_coordinator.planning.clusters.descent import descended
from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.division.dividing_pricer import DividingPricer
from edge_coordinator.planning.division.pricing import Pricer
from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.form import OwnGrouping
from edge_coordinator.planning.joint.starts import RoundStart, clearly_longer, first_start, recoded
from edge_coordinator.planning.joint.turn_prices import TurnPrices
from edge_coordinator.planning.latency import device_phase_s
from edge_coordinator.planning.micro_batches import Flows, regrouped, smallest_of
from edge_coordinator.planning.plan import ClusterPlan, StepFlow
from profiles.corrections import by_phase
from profiles.device import DeviceState
from profiles.link import SharedLink
from profiles.units import Counts, Floats

MOST_STEPS = 2
"""Of swaps between clusters whose samples are shared out: their prices are dear."""


@dataclass(frozen=True)
class Formed:
    """Clusters whose samples are shared out in one way."""

    sharing: Sharing
    pricer: Pricer
    flows: Flows
    start: Counts
    members: Counts
    clusters: tuple[ClusterPlan, ...]
    predicted_s: float


def form_round(
    fleet: Fleet,
    workload: Workload,
    *,
    cut: int,
    grouping: Grouping,
    devices: Sequence[DeviceState],
    schedule: GibbsSchedule | None,
    generator: np.random.Generator,
) -> tuple[RoundStart, Formed, Formed]:
    """Choose codec, shares of samples and clusters; and form some with mini-batches of one size."""
    start = first_start(fleet, workload, cut=cut, sizes=grouping.sizes(fleet.num_devices))
    form = partial(
        _forms, fleet, grouping=grouping, cut=cut,
        devices=devices, schedule=schedule, generator=generator,
    )  # fmt: skip
    formed, equal = form(start)
    again = recoded(
        fleet, start, formed.members, every=workload, cut=cut, sharing=formed.sharing
    )  # fmt: skip
    if again.workload.chosen == start.workload.chosen:
        return again, formed, equal
    better, equal_again = form(again)
    if better.predicted_s < formed.predicted_s:
        return again, better, equal_again
    return start, formed, equal


def _forms(
    fleet: Fleet,
    start: RoundStart,
    *,
    grouping: Grouping,
    cut: int,
    devices: Sequence[DeviceState],
    schedule: GibbsSchedule | None,
    generator: np.random.Generator,
) -> tuple[Formed, Formed]:
    """Cluster the devices, samples shared out as is best; and with mini-batches of one size."""
    form = partial(
        _form, fleet, start.workload, cut, grouping,
        alike=start.members, devices=devices, schedule=schedule, generator=generator,
    )  # fmt: skip
    asked = [each for each in sharings(start.workload, cut=cut) if each != "equal"]
    longer = clearly_longer(fleet, start, cut=cut, sharings=("equal", *asked))
    equal = form(sharing="equal", is_brief="equal" in longer)
    if not asked:
        return equal, equal
    shared = form(sharing=asked[0], is_brief=asked[0] in longer)
    return _worth_more(shared, equal, start.workload), equal


def _worth_more(shared: Formed, equal: Formed, workload: Workload) -> Formed:
    """Share samples out if that is asked for, or shortens the round by enough."""
    is_asked = workload.batch_sizes != "auto"
    is_shorter = shared.predicted_s < (1 - LEAST_GAIN) * equal.predicted_s
    return shared if is_asked or is_shorter else equal


def _form(
    fleet: Fleet,
    workload: Workload,
    cut: int,
    grouping: Grouping,
    *,
    sharing: Sharing,
    is_brief: bool,
    alike: Counts,
    devices: Sequence[DeviceState],
    schedule: GibbsSchedule | None,
    generator: np.random.Generator,
) -> Formed:
    """Cluster all devices, their samples shared out so; briefly to know what others save."""
    pricer = pricer_of(
        fleet, workload, cut=cut, sharing=sharing,
        label_mix=fleet.label_mix, balance_weight=grouping.balance_weight,
    )  # fmt: skip
    sizes, form = grouping.sizes(fleet.num_devices), grouping.form
    start = best_start(pricer, alike=alike)
    swaps = form == "planned" and not (grouping.equal_shares or is_brief or pricer.balance_weight)
    schedule = CUT_SCHEDULE if is_brief else schedule or _schedule(pricer, start, sharing)
    if isinstance(form, OwnGrouping) and grouping.method == "cpsl":
        layer = workload.cuts.cut_names[cut]
        members = own_clusters(pricer, form, devices, sizes=sizes, layer=layer, generator=generator)
    else:
        named = "planned" if isinstance(form, OwnGrouping) else form
        members = clusters_as(pricer, named, start=start, schedule=schedule, generator=generator)
    if swaps and not isinstance(pricer, DividingPricer):
        members = _regrouped(pricer, fleet, workload, members, cut=cut, sharing=sharing)
    batch_sizes = shared_sizes(pricer, workload, members)
    flows = Flows(
        *(fleet, workload, cut, batch_sizes, smallest_of(members, batch_sizes)),
        equal_shares=grouping.equal_shares,
    )
    clusters = cluster_plans(flows, members, is_shared_out=batch_sizes is not None)
    predicted_s = sum(each.predicted_s or 0.0 for each in clusters) + workload.round_overhead_s
    return Formed(sharing, pricer, flows, start, members, clusters, predicted_s)


def _schedule(pricer: Pricer, start: Counts, sharing: Sharing) -> GibbsSchedule:
    """Choose a budget; where samples are shared out, no link's prices are cheap."""
    medium = pricer.medium if sharing == "equal" else SharedLink()
    return default_schedule(int((start >= 0).sum()), num_clusters=len(start), medium=medium)


def _regrouped(
    pricer: Pricer,
    fleet: Fleet,
    workload: Workload,
    members: Counts,
    *,
    cut: int,
    sharing: Sharing,
) -> Counts:
    """Swap devices for as long as that shortens turns as they are planned, [cluster, position].

    Sampling compares clusters that wait at barriers, and samples that are shared out but once.
    Swaps are compared in the micro-batches that most clusters take.
    """
    if sharing == "equal":
        return regrouped(pricer, Flows(fleet, workload, cut), members)
    cuts, sizes = fleet.cuts_by(cut), shared_sizes(pricer, workload, members)
    flows = Flows(fleet, workload, cut, sizes, smallest_of(members, sizes))
    taken = [
        flow for flow, _ in Counter(each.flow for each in flows.chosen(members)).most_common(2)
    ]
    work = replace(workload, micro_batches=tuple({flow.micro_batches for flow in taken}))
    if workload.phis:
        work = replace(work, phis=tuple(sorted({0.0, *(flow.phi for flow in taken)})))

    def turns_s(rows: Counts, priced: Workload = work) -> Floats:
        flat = rows.reshape(-1, rows.shape[-1])
        own_s = TurnPrices(fleet, priced, sharing).turns_s(flat, cuts[flat])
        return own_s.reshape(rows.shape[:-1])

    swapped = descended(turns_s, members, most_steps=MOST_STEPS)
    is_shorter = turns_s(swapped, workload).sum() < turns_s(members, workload).sum()
    return in_order(swapped) if is_shorter else members


def cluster_plans(
    flows: Flows, members: Counts, *, is_shared_out: bool, among: Sequence[StepFlow] = ()
) -> tuple[ClusterPlan, ...]:
    """Write clusters down, [cluster, position], their mini-batches as is best or as is given."""
    clusters, sizes = [], flows.batch_sizes
    for parting, row in zip(flows.chosen(members, among), members, strict=True):
        of_row, own = row[row >= 0], parting.shares[row >= 0]
        phase_s = device_phase_s(parting.seconds, members=of_row, shares=own)
        clusters.append(
            parting.plan(
                flows.workload,
                devices=tuple(flows.fleet.devices[member] for member in of_row),
                shares=tuple(own.tolist()),
                phases=tuple(by_phase(column) for column in phase_s.T),
                batch_sizes=tuple(map(int, sizes[of_row]))
                if sizes is not None and is_shared_out
                else (),
            )
        )
    return tuple(clusters)
