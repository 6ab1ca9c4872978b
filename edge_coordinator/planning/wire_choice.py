"""Which codec a round takes, and which share of gradients its clusters are sampled with.

Of those that a job allows it is what counts as least, each codec with each share, and with the
micro-batches that are best with both.
"""

from dataclasses import dataclass, replace

import numpy as np

from edge_coordinator.planning.clusters.clustering import sorted_clusters
from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.micro_batches import Flows
from edge_coordinator.planning.pricing import QUICK_EXCHANGES
from profiles.units import Counts


@dataclass(frozen=True)
class WireChoice:
    """What was chosen, and what it saves."""

    workload: Workload
    saved_s: float = 0.0
    """Seconds of a round that the codec saves beside the one that loses least."""


def choose_wire(fleet: Fleet, workload: Workload, *, cut: int, sizes: Counts) -> WireChoice:
    """Take the codecs of the cheapest round at this cut; of equal ones those that lose less.

    Rounds are compared with devices of like finish time together, whoever trains with whom later.
    """
    phis, wired = workload.phis_at(cut), [workload]
    if workload.phis and fleet.cuts is not None:
        phis = (0.0,)  # Who cuts at another layer aggregates with those of its cut alone.
    if len(workload.wires) > 1:
        wired = [replace(workload, chosen=wire.codecs) for wire in workload.wires]
    if len(wired) * len(phis) < 2:
        return WireChoice(replace(workload, phi=phis[0]))
    candidates = [replace(each, phi=phi) for each in wired for phi in phis]
    priced = [_sorted_costs(fleet, each, cut=cut, sizes=sizes) for each in candidates]
    best = min(range(len(candidates)), key=lambda index: priced[index][0])
    without = priced[best % len(phis)]  # With the same share, as the codecs that lose least.
    return WireChoice(candidates[best], saved_s=without[1] - priced[best][1])


def _sorted_costs(
    fleet: Fleet, workload: Workload, *, cut: int, sizes: Counts
) -> tuple[float, float]:
    """What a round of sorted clusters counts as, and its seconds."""
    flows = Flows(fleet, replace(workload, phis=()), cut)
    members = sorted_clusters(flows.pricer(workload.phi), sizes=sizes)
    shares = flows.shares(members, workload.phi, max_exchanges=QUICK_EXCHANGES)
    every = flows.workload.flows(cut)
    turns_s = np.stack([flows.turns_s(flow, members=members, shares=shares) for flow in every])
    costs_s = np.stack(
        [
            flows.costs_s(flow, own_s, members=members, shares=shares)
            for flow, own_s in zip(every, turns_s, strict=True)
        ]
    )
    best = costs_s.argmin(axis=0), np.arange(len(members))
    return float(costs_s[best].sum()), float(turns_s[best].sum())
