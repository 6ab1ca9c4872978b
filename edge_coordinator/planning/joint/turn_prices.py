"""Seconds of turns with all that shortens them: many at once, of any devices at any cuts.

A turn has its link divided, its samples shared out (as real numbers) and as many micro-batches as a
plan would give it. Each position of each turn is looked at as a device of its own, so that turns
which differ in one device, or in one device's cut, are priced side by side.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from edge_coordinator.planning.batch_shares import Sharing, pricer_of
from edge_coordinator.planning.division.pricing import QUICK_EXCHANGES, Pricer
from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.micro_batches import Flows, gain_asked, smallest_of
from edge_coordinator.planning.plan import StepFlow
from profiles.units import Counts, Floats

_BY_DEVICE = (
    *("num_samples", "device_forward_s", "device_backward_s", "up_bps", "down_bps"),
    *("round_trip_s", "message_s", "free_memory_bytes"),
)
_BY_DEVICE_LAST = ("scale", "added_s", "power_w")


@dataclass(frozen=True)
class TurnPrices:
    """Prices turns whose tensors travel as the workload has chosen, samples shared out so."""

    fleet: Fleet
    workload: Workload
    sharing: Sharing
    _known: list[tuple[Counts, Pricer]] = field(default_factory=list, init=False, compare=False)
    """Prices of devices at cuts, for which numbers stand, in order."""

    @property
    def looks_up(self) -> bool:
        """Whether the micro-batches that suit turns are found as clusters are looked up."""
        return self.sharing != "by_data" and self.workload.partings[-1] > 1

    def turns_s(
        self, members: Counts, cuts: Counts, *, max_exchanges: int = QUICK_EXCHANGES
    ) -> Floats:
        """Seconds of each turn, [turn]; members and their cuts are [turn, position]."""
        present = members >= 0
        if self.looks_up:
            return self._divided_s(members, cuts)
        listed = listed_devices(self.fleet, members[present], cuts=cuts[present])
        places = np.where(present, present.cumsum().reshape(present.shape) - 1, -1)
        work = self.workload
        plain = np.isin(cuts[present], [*work.plain_cuts])
        cut = int(cuts[present][plain.argmin()])  # One that allows all that any does, if there is.
        pricer = pricer_of(listed, work, cut=cut, sharing=self.sharing)
        divided = pricer.shares(places, max_exchanges=max_exchanges)
        batch_sizes = None
        if self.sharing != "equal":
            batch_sizes = work.batch_size * pricer.sample_weights(places, divided)[present]
        smallest = smallest_of(places, batch_sizes) if work.phi or work.phis else None
        flows = Flows(listed, work, cut, batch_sizes, smallest)
        every = flows.allowed
        shares = {
            phi: divided if phi == work.phi
            else flows.shares(places, StepFlow(1, phi), max_exchanges=max_exchanges)
            for phi in {flow.phi for flow in every}
        }  # fmt: skip
        turns_s = np.stack(
            [flows.turns_s(flow, members=places, shares=shares[flow.phi]) for flow in every]
        )
        costs_s = turns_s * (1 + np.array([[gain_asked(flow)] for flow in every]))
        aggregates = np.array([[flow.phi > 0] for flow in every])
        costs_s[aggregates & flows.are_plain(places)] = np.inf
        chosen_s: Floats = turns_s[costs_s.argmin(axis=0), np.arange(turns_s.shape[1])]
        return chosen_s

    def _divided_s(self, members: Counts, cuts: Counts) -> Floats:
        """Look clusters up, each device at each of its cuts once."""
        is_there, count = members >= 0, self.workload.cuts.num_layers + 1
        pairs = members * count + cuts
        found = np.unique(pairs[is_there])
        known = next((each for each in self._known if np.isin(found, each[0]).all()), None)
        if known is None:
            listed = listed_devices(self.fleet, found // count, cuts=found % count)
            cut = int(found[0] % count)
            known = found, pricer_of(listed, self.workload, cut=cut, sharing=self.sharing)
            self._known.append(known)
        places = np.where(is_there, np.searchsorted(known[0], pairs), -1)
        turns_s: Floats = known[1].latency_s(places, max_exchanges=0)
        return np.maximum(turns_s + self.workload.cluster_overhead_s, 0.0)


def listed_devices(fleet: Fleet, rows: Counts, *, cuts: Counts) -> Fleet:
    """List devices, any of them several times, each with a cut; both are [place]."""
    return replace(
        fleet,
        devices=tuple(fleet.devices[row] for row in rows.tolist()),
        label_mix=None,
        cuts=cuts if cuts.size and cuts.min() < cuts.max() else None,
        **{name: getattr(fleet, name)[rows] for name in _BY_DEVICE},
        **{name: getattr(fleet, name)[:, rows] for name in _BY_DEVICE_LAST},
    )
