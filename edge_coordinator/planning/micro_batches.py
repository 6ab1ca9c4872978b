"""How the mini-batches of each cluster travel, by the latency model.

Into how many micro-batches they go, and where a plan may choose it, which share of them is
aggregated over the devices: both at once, since each changes what the other is worth.
"""

from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edge_coordinator.planning.clusters.clustering import in_order
from edge_coordinator.planning.clusters.descent import descended
from edge_coordinator.planning.division.device_turns import DeviceStages
from edge_coordinator.planning.division.dividing import divide_link
from edge_coordinator.planning.division.pricing import QUICK_EXCHANGES, THOROUGH_EXCHANGES, Pricer
from edge_coordinator.planning.energy import turn_weighed_s
from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.latency import PhasesByShare, phase_seconds, turn_s
from edge_coordinator.planning.overlap import with_empty_device
from edge_coordinator.planning.plan import ClusterPlan, StepFlow
from edge_coordinator.planning.spectrum import equal_shares
from profiles.link import IndependentLinks
from profiles.phases import SecondsByPhase
from profiles.units import Counts, Floats

LEAST_GAIN = 0.002
"""Of a turn, by which each further micro-batch has to shorten it: a frame is not for nothing."""
LEAST_GAIN_OF_QUARTER = 0.02
"""Of a turn, by which each quarter of a mini-batch that is aggregated has to shorten it: it costs
some accuracy."""


@dataclass(frozen=True)
class Parting:
    """How a cluster's mini-batches travel, and what its turn takes so."""

    flow: StepFlow
    seconds: PhasesByShare
    shares: Floats
    """Of the link, [position]."""
    turn_s: float
    whole_batches_s: float | None
    """What it would take with whole mini-batches, where these are not whole."""
    plain_s: float | None
    """What it would take with nothing aggregated, where that is chosen and something is."""

    def plan(
        self,
        workload: Workload,
        *,
        devices: tuple[str, ...],
        shares: tuple[float, ...],
        phases: tuple[SecondsByPhase, ...],
        batch_sizes: tuple[int, ...],
    ) -> ClusterPlan:
        """Write down the cluster whose mini-batches travel so."""
        return ClusterPlan(
            devices=devices,
            shares=shares,
            predicted_s=self.turn_s,
            phases=phases,
            micro_batches=self.flow.micro_batches,
            overhead_s=workload.cluster_overhead_s,
            whole_batches_s=self.whole_batches_s,
            batch_sizes=batch_sizes,
            phi=self.flow.phi if workload.phis else None,
            plain_s=self.plain_s,
        )


@dataclass(frozen=True)
class Flows:
    """What the turns of clusters take, however their mini-batches travel."""

    fleet: Fleet
    workload: Workload
    cut: int
    batch_sizes: Floats | None = None
    """Samples, [device], if not the workload's."""
    smallest: Floats | None = None
    """Of the device of each one's cluster that has the fewest, [device], if not the workload's."""
    equal_shares: bool = field(default=False, kw_only=True)
    """Divide a shared link evenly."""
    _known: dict[StepFlow, PhasesByShare] = field(default_factory=dict, init=False, compare=False)
    _stages_by_phi: dict[float, DeviceStages] = field(
        default_factory=dict, init=False, compare=False
    )

    _shares_of_whole: dict[Hashable, Floats] = field(
        default_factory=dict, init=False, compare=False
    )

    @property
    def allowed(self) -> tuple[StepFlow, ...]:
        """All that there may be; with mini-batches of several sizes in parts or aggregated."""
        flows = self.workload.flows(self.cut)
        if self.batch_sizes is None:
            return flows
        return tuple(flow for flow in flows if flow.micro_batches == 1 or not flow.phi)

    def seconds(self, flow: StepFlow) -> PhasesByShare:
        """Seconds of every phase."""
        if flow not in self._known:
            self._known[flow] = phase_seconds(
                self.fleet,
                replace(self.workload, phi=flow.phi),
                cut=self.cut,
                micro_batches=flow.micro_batches,
                batch_sizes=self.batch_sizes,
                smallest=self.smallest,
            )
        return self._known[flow]

    def pricer(self, phi: float) -> Pricer:
        """Price clusters whose mini-batches are whole."""
        return Pricer(
            self.seconds(StepFlow(1, phi)), self.workload.medium, None, balance_weight=0.0
        )

    def shares(self, members: Counts, flow: StepFlow, *, max_exchanges: int) -> Floats:
        """Divide the link, [cluster, position]: as is best in parts, or with wholes if better."""
        present, medium = members >= 0, self.workload.medium
        if self.equal_shares:
            return equal_shares(present=present, medium=medium)
        whole = self._whole_shares(members, flow.phi, max_exchanges=max_exchanges)
        if flow.micro_batches == 1 or isinstance(medium, IndependentLinks):
            return whole
        parted = whole.copy()
        is_mixed = self.seconds(flow).are_mixed(members)
        for mixed in set(is_mixed.tolist()):
            rows = members[is_mixed == mixed]
            parted[is_mixed == mixed] = divide_link(
                self._stages(flow.phi).turns(flow.micro_batches, is_mixed=mixed).of_devices(rows),
                with_empty_device(self._times)[rows],
                present=rows >= 0,
                medium=medium,
            )
        both_s = [self.turns_s(flow, members=members, shares=each) for each in (whole, parted)]
        return np.where((both_s[1] < both_s[0])[:, np.newaxis], parted, whole)

    def _whole_shares(self, members: Counts, phi: float, *, max_exchanges: int) -> Floats:
        """Divide the link as is best with whole mini-batches: dear, and asked for by each flow."""
        key = phi, max_exchanges, members.shape, members.tobytes()
        if key not in self._shares_of_whole:
            divided = self.pricer(phi).shares(members, max_exchanges=max_exchanges)
            self._shares_of_whole[key] = divided
        return self._shares_of_whole[key]

    @property
    def _times(self) -> Floats:
        """Sizes of mini-batches, in the job's, [device]."""
        if self.batch_sizes is None:
            return np.ones(self.fleet.num_devices)
        return self.batch_sizes / self.workload.batch_size

    def _stages(self, phi: float) -> DeviceStages:
        if phi not in self._stages_by_phi:
            work = replace(self.workload, phi=phi, phis=())
            once = self.seconds(StepFlow(1, phi)) if self.batch_sizes is None else None
            stages = DeviceStages.of(self.fleet, work, cut=self.cut, once=once)
            self._stages_by_phi[phi] = stages
        return self._stages_by_phi[phi]

    def turns_s(self, flow: StepFlow, *, members: Counts, shares: Floats) -> Floats:
        """Seconds of each cluster's turn, [...]; members and shares are [..., position]."""
        overhead_s = self.workload.cluster_overhead_s
        return turn_s(self.seconds(flow), members=members, shares=shares, overhead_s=overhead_s)

    def costs_s(
        self, flow: StepFlow, turns_s: Floats, *, members: Counts, shares: Floats
    ) -> Floats:
        """What turns count as, [cluster]: with their joules, and what a flow is worth less for."""
        seconds, workload = self.seconds(flow), self.workload
        weighed_s = turn_weighed_s(
            self.fleet, workload, seconds, members=members, shares=shares, turns_s=turns_s
        )
        return (turns_s + weighed_s) * (1 + gain_asked(flow))

    def chosen(self, members: Counts, among: Collection[StepFlow] = ()) -> list[Parting]:
        """Choose for each cluster, [cluster, position], what counts as least.

        Among all that the workload allows, or those that are given.
        """
        flows = sorted(among or self.allowed, key=lambda flow: flow[::-1])
        priced = sorted({each for flow in flows for each in (flow, *self._without(flow))})
        shares = {
            flow: self.shares(members, flow, max_exchanges=THOROUGH_EXCHANGES) for flow in priced
        }
        turns_s = {
            flow: self.turns_s(flow, members=members, shares=shares[flow]) for flow in priced
        }
        is_plain = self.are_plain(members)
        costs_s = [
            np.where(
                is_plain & bool(flow.phi),
                np.inf,
                self.costs_s(flow, turns_s[flow], members=members, shares=shares[flow]),
            )
            for flow in flows
        ]
        best = [flows[index] for index in np.stack(costs_s).argmin(axis=0)]
        return [
            Parting(
                flow,
                self.seconds(flow),
                shares[flow][row],
                float(turns_s[flow][row]),
                *(
                    None if other == flow else float(turns_s[other][row])
                    for other in self._without(flow)
                ),
            )
            for row, flow in enumerate(best)
        ]

    def are_plain(self, members: Counts) -> NDArray[np.bool_]:
        """Whether a plan chooses to aggregate nothing in clusters, since their cuts allow none.

        Devices that cut at different layers have no samples of one shape.
        """
        if not self.workload.phis or self.fleet.cuts is None:
            return np.zeros(len(members), dtype=np.bool_)
        plain_cuts = [*self.workload.plain_cuts]
        at_plain = np.isin(self.fleet.cuts[members], plain_cuts) & (members >= 0)
        mixed = self.seconds(StepFlow(1, 0.0)).are_mixed(members)
        plain: NDArray[np.bool_] = mixed | at_plain.any(axis=-1)
        return plain

    def _without(self, flow: StepFlow) -> tuple[StepFlow, StepFlow]:
        """The same with whole mini-batches; and with nothing aggregated, if that is chosen."""
        phi = 0.0 if self.workload.phis else flow.phi
        return StepFlow(1, flow.phi), StepFlow(flow.micro_batches, phi)


def smallest_of(members: Iterable[Counts], batch_sizes: Floats | None) -> Floats | None:
    """Samples of the device with the fewest of each one's cluster, [device].

    `members` are those of each cluster, -1 for none; swaps that are tried leave some of nobody.
    """
    if batch_sizes is None:
        return None
    smallest = batch_sizes.copy()
    for row in members:
        present = row[row >= 0]
        smallest[present] = batch_sizes[present].min(initial=np.inf)
    return smallest


def gain_asked(flow: StepFlow) -> float:
    """Of a turn, what a flow has to gain to be taken."""
    return LEAST_GAIN * flow.micro_batches + LEAST_GAIN_OF_QUARTER * 4 * flow.phi


def regrouped(pricer: Pricer, flows: Flows, members: Counts) -> Counts:
    """Swap devices for as long as that shortens turns in the micro-batches that these take.

    Sampling compares clusters that wait at barriers. `members` are [cluster, position]; they stay
    as they are where mini-batches stay whole, or labels count.
    """
    if flows.workload.partings == (1,) or pricer.balance_weight:
        return members
    before = flows.chosen(members)
    taken = sorted({each.flow for each in before})

    def prices(rows: Counts) -> Floats:
        shares = {
            flow: flows.shares(rows, StepFlow(1, flow.phi), max_exchanges=QUICK_EXCHANGES)
            for flow in taken
        }
        own = [flows.turns_s(flow, members=rows, shares=shares[flow]) for flow in taken]
        shortest_s: Floats = np.min(own, axis=0)
        return shortest_s

    swapped = descended(prices, members)
    after = flows.chosen(swapped)
    is_shorter = sum(each.turn_s for each in after) < sum(each.turn_s for each in before)
    return in_order(swapped) if is_shorter else members
