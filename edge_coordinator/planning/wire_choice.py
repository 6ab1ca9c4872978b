"""Which codec a round takes: of those that a job allows, the one whose round counts as least."""

from dataclasses import replace

from edge_coordinator.planning.clusters.clustering import sorted_clusters
from edge_coordinator.planning.energy import weighed_s
from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.latency import phase_seconds, round_s
from edge_coordinator.planning.pricing import QUICK_EXCHANGES, Pricer
from profiles.units import Counts


def choose_wire(fleet: Fleet, workload: Workload, *, cut: int, sizes: Counts) -> Workload:
    """Take the codecs of the cheapest round at this cut; of equal ones those that lose less.

    Rounds are compared with devices of like finish time together, whoever trains with whom later.
    """
    if len(workload.wires) < 2:
        return workload
    candidates = [replace(workload, chosen=wire.codecs) for wire in workload.wires]
    return min(candidates, key=lambda each: _sorted_cost_s(fleet, each, cut=cut, sizes=sizes))


def _sorted_cost_s(fleet: Fleet, workload: Workload, *, cut: int, sizes: Counts) -> float:
    seconds = phase_seconds(fleet, workload, cut=cut)
    pricer = Pricer(seconds, workload.medium, label_mix=None, balance_weight=0.0)
    members = sorted_clusters(pricer, sizes=sizes)
    shares = pricer.shares(members, max_exchanges=QUICK_EXCHANGES)
    took_s = float(round_s(seconds, workload, members=members, shares=shares))
    return took_s + weighed_s(
        fleet, workload, seconds, members=members, shares=shares, round_s=took_s
    )
