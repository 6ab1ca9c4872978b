"""What the best possible round takes at least, and how far a plan may be from it.

The server's seconds are the same for every clustering. What the clusters wait is bounded by
`device_prices`, the distribution of models by that of devices with like rates together.
"""

import math

import numpy as np

from edge_coordinator.planning.bound.device_prices import (
    PlannedWaits,
    first_prices,
    waits_bound_s,
)
from edge_coordinator.planning.bound.pooled_prices import (
    MOST_DEVICES,
    MOST_OF_CLUSTER,
    pooled_bound_s,
)
from edge_coordinator.planning.bound.relaxation import Boxes, PairedWaits
from edge_coordinator.planning.division.pricing import THOROUGH_EXCHANGES, Pricer
from edge_coordinator.planning.fleet import Workload
from profiles.units import Counts, Floats

SOME_EXCHANGES = 9
"""Enough to tell what clusters wait that are no part of a plan."""
FULL_PERCENT = 10
"""From here on percents are said without a decimal."""
ROUNDING_PERCENT = 1e-6


def lower_bound_s(pricer: Pricer, workload: Workload, *, members: Counts) -> float:
    """Seconds that no round of these devices beats, at this cut, in clusters of these sizes.

    `members` are a good plan's clusters, [cluster, position]; the better they are, the higher is
    the bound.
    """
    seconds, sizes = pricer.seconds, (members >= 0).sum(axis=-1)
    once_s = seconds.least_aggregated_s(sizes, or_none=bool(workload.phis))
    step_s = float(seconds.server_s.sum()) + once_s
    server_s = seconds.local_epochs * step_s
    # No turn ends before any of its devices could have ended it alone.
    own_s = seconds.distribute_s + seconds.finish.sum(axis=0)
    alone_s = server_s + together_s(own_s[:-1], sizes=sizes)
    beyond_s = server_s + len(members) * workload.cluster_overhead_s
    beyond_s += together_s(seconds.distribute_s[:-1], sizes=sizes)
    waits = PairedWaits.of(seconds, pricer.medium, least_size=int(sizes.min()))
    waits_s = sum(together_s(each_s, sizes=sizes) for each_s in waits.least_s)
    if sizes.max() > 1:  # Else there is one clustering, and no link to divide.
        planned = _planned_waits(pricer, waits, members)
        waits_s = max(waits_s, _waits_bound_s(pricer, waits, planned))
    return max(alone_s, beyond_s + waits_s) + workload.round_overhead_s


def bound_reason(predicted_s: float, *, bound_s: float, given: str) -> str:
    """Say how far a plan may be from the best, rounded up; nothing where the bound is nothing.

    `given` is what the best is the best with.
    """
    if bound_s <= 0:
        return ""
    percent = max(100 * (predicted_s / bound_s - 1) - ROUNDING_PERCENT, 0.0)
    decimals = 1 if percent < FULL_PERCENT else 0
    above = math.ceil(percent * 10**decimals) / 10**decimals
    return f", within {above:.{decimals}f} % of the best possible at {given}"


def given_choices(workload: Workload, cuts: Counts) -> str:
    """Name the choices that a bound takes as they are; cuts are [device]."""
    given = "these cuts" if cuts.min() < cuts.max() else "this cut"
    return given + " with this codec" * (workload.chosen is not None)


def together_s(own_s: Floats, *, sizes: Counts) -> float:
    """Sum up the clusters' slowest at the least: with devices of like seconds together."""
    slowest_first, largest_first = np.sort(own_s)[::-1], np.sort(sizes)[::-1]
    return float(slowest_first[np.cumsum(largest_first) - largest_first].sum())


def _waits_bound_s(pricer: Pricer, waits: PairedWaits, planned: PlannedWaits) -> float:
    """Bound what all clusters wait; few devices that divide a link from clusters there could be."""
    members = planned.members
    is_few = waits.num_devices <= MOST_DEVICES and members.shape[1] <= MOST_OF_CLUSTER
    if not (waits.is_divided and is_few):
        return waits_bound_s(waits, planned)

    def waited_of(clusters: Counts) -> Floats:
        shares = pricer.shares(clusters, max_exchanges=SOME_EXCHANGES)
        waited_s: Floats = _slowest_s(waits, clusters, shares).sum(axis=0)
        return waited_s

    boxes = Boxes.grid(waits, most_s=planned.most_s)
    prices = first_prices(waits, planned)
    return pooled_bound_s(waits, members, waited_of, boxes=boxes, prices=prices)


def _planned_waits(pricer: Pricer, waits: PairedWaits, members: Counts) -> PlannedWaits:
    """Work out what the clusters of a plan wait, their link divided."""
    shares = pricer.shares(members, max_exchanges=THOROUGH_EXCHANGES)
    slowest_s = _slowest_s(waits, members, shares)
    return PlannedWaits(members, slowest_s.sum(axis=0), slowest_s.max(axis=-1))


def _slowest_s(waits: PairedWaits, members: Counts, shares: Floats) -> Floats:
    """What clusters wait with their link divided so, [wait, cluster]."""
    waits_s = waits.fixed_s[:, members] + waits.link_s[:, members] / shares
    slowest_s: Floats = np.where(members >= 0, waits_s, 0.0).max(axis=-1)
    return slowest_s
