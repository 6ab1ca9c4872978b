"""What a plan begins with: devices of like finish time together, and the codec that suits them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from edge_coordinator.planning.batch_shares import Sharing
from edge_coordinator.planning.clusters.clustering import mixed_clusters, sorted_clusters
from edge_coordinator.planning.division.pricing import (
    MAX_REMEMBERED_DEVICES,
    QUICK_EXCHANGES,
)
from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.joint.turn_prices import TurnPrices, listed_devices
from edge_coordinator.planning.micro_batches import Flows
from edge_coordinator.planning.plan import StepFlow
from profiles.units import Counts, Floats

LEAST_GAIN = 0.01
"""Of a round's seconds, that another codec has to save: clusters are sampled anew for it."""
REACH = 0.25
"""Of the best round's seconds: a codec that is further above it is not looked at again."""
CLEAR = 0.1
"""By so much of a round's seconds a start has to be longer to be given up."""


@dataclass(frozen=True)
class RoundStart:
    """Clusters to begin with, and what tensors travel as in them."""

    workload: Workload
    """Its codec chosen, among those that come near it, and the share of gradients that clusters are
    sampled with."""
    members: Counts
    """[cluster, position]"""
    saved_s: float = 0.0
    """Seconds of a round that the codec saves beside the one that loses least."""


def first_start(fleet: Fleet, workload: Workload, *, cut: int, sizes: Counts) -> RoundStart:
    """Begin at a cut, or where each device of the fleet cuts."""
    return _starts(fleet, workload, fleet.cuts_by(cut)[np.newaxis], at=cut, sizes=sizes)[0]


def starts_at(
    fleet: Fleet, workload: Workload, *, cuts: Sequence[int], sizes: Counts
) -> dict[int, RoundStart]:
    """Begin at each of these cuts: all at once, unless what counts is no device's by itself."""
    if not cuts:
        return {}
    rows = np.repeat(np.array(cuts)[:, np.newaxis], fleet.num_devices, axis=1)
    if workload.phi or workload.phis or workload.energy_weight:
        return {
            cut: _starts(fleet, workload, row[np.newaxis], at=cut, sizes=sizes)[0]
            for cut, row in zip(cuts, rows, strict=True)
        }
    starts = _starts(fleet, workload, rows, at=cuts[0], sizes=sizes)
    return dict(zip(cuts, starts, strict=True))


def _starts(
    fleet: Fleet, workload: Workload, cuts: Counts, *, at: int, sizes: Counts
) -> list[RoundStart]:
    """Take codecs, and shares of gradients, of the cheapest rounds; cuts are [choice, device].

    Of equal ones those that lose less. Rounds are compared with devices of like finish time
    together, in the micro-batches that are best with both.
    """
    phis, wired = workload.phis_at(at), [workload]
    if workload.phis and fleet.cuts is not None:
        phis = (0.0,)  # Who cuts at another layer aggregates with those of its cut alone.
    if len(workload.wires) > 1:
        wired = [replace(workload, chosen=wire.codecs) for wire in workload.wires]
    works = [replace(each, phi=phi) for each in wired for phi in phis]
    priced = [_sorted(fleet, each, cuts, at=at, sizes=sizes) for each in works]
    costs_s = np.stack([each.costs_s for each in priced])
    is_near = (costs_s <= (1 + REACH) * costs_s.min(axis=0)).reshape(len(wired), len(phis), -1)
    best = costs_s.argmin(axis=0).tolist()
    return [
        RoundStart(
            _among(works[index], is_near[..., choice].any(axis=-1)),
            priced[index].members[choice],  # Beside the same share, as the codecs that lose least.
            float(priced[index % len(phis)].took_s[choice] - priced[index].took_s[choice]),
        )
        for choice, index in enumerate(best)
    ]


def _among(workload: Workload, is_near: NDArray[np.bool_]) -> Workload:
    """Leave codecs out that do not come near, [codec]."""
    if len(workload.wires) < 2:
        return workload
    return replace(workload, wires=tuple(compress(workload.wires, is_near.tolist())))


@dataclass(frozen=True)
class _Sorted:
    """Rounds with devices of like finish time together."""

    members: Sequence[Counts]
    """[choice, cluster, position]"""
    costs_s: Floats
    """What they count as, [choice]."""
    took_s: Floats


def recoded(
    fleet: Fleet, start: RoundStart, members: Counts, *, every: Workload, cut: int, sharing: Sharing
) -> RoundStart:
    """Take the codec that is best with clusters as they have become, [cluster, position].

    Of those that came near at the start; `every` has all to choose from, the one that loses least
    first. Not where joules count, which are no turn's alone.
    """
    work, own = start.workload, fleet.cuts_by(cut)
    if len(every.wires) < 2 or work.energy_weight:
        return start
    took_s = {
        wire.codecs: float(
            TurnPrices(fleet, replace(work, wires=(wire,), chosen=wire.codecs), sharing)
            .turns_s(members, own[members])
            .sum()
        )
        for wire in {each.codecs: each for each in (every.wires[0], *work.wires)}.values()
    }
    best = min((wire.codecs for wire in work.wires), key=took_s.__getitem__)
    now_s = took_s[work.chosen or every.wires[0].codecs]
    if took_s[best] < (1 - LEAST_GAIN) * now_s:
        work, now_s = replace(work, chosen=best), took_s[best]
    return replace(start, workload=work, saved_s=took_s[every.wires[0].codecs] - now_s)


def clearly_longer(
    fleet: Fleet, start: RoundStart, *, cut: int, sharings: Sequence[Sharing]
) -> frozenset[Sharing]:
    """Name the ways to share samples out that take far longer than the best, from a start.

    None where devices are few: there whatever is compared costs little.
    """
    if len(sharings) < 2 or fleet.num_devices <= MAX_REMEMBERED_DEVICES:
        return frozenset()
    took_s = []
    for sharing in sharings:
        prices, forms = TurnPrices(fleet, start.workload, sharing), [start.members]
        forms += [mixed_clusters(start.members)] if sharing != "equal" else []
        cuts = fleet.cuts_by(cut)
        took_s.append(min(float(prices.turns_s(each, cuts[each]).sum()) for each in forms))
    longest_s = (1 + CLEAR) * min(took_s)
    return frozenset(
        sharing for sharing, own_s in zip(sharings, took_s, strict=True) if own_s > longest_s
    )


def _sorted(fleet: Fleet, workload: Workload, cuts: Counts, *, at: int, sizes: Counts) -> _Sorted:
    """Group devices of like finish time, and price that."""
    num_choices, num_devices = cuts.shape
    devices = np.tile(np.arange(num_devices), num_choices)
    every = listed_devices(fleet, devices, cuts=cuts.reshape(-1))
    flows = Flows(every, replace(workload, phis=()), int(cuts[0, 0]))
    pricer = flows.pricer(workload.phi)
    rows = [
        sorted_clusters(pricer, sizes=sizes, among=num_devices * choice + np.arange(num_devices))
        for choice in range(num_choices)
    ]
    members = [np.where(row < 0, -1, row % num_devices) for row in rows]
    if len(workload.wires) < 2 and not workload.phis:
        return _Sorted(members, *np.zeros((2, num_choices)))
    flat = np.concatenate(rows)
    shares = flows.shares(flat, StepFlow(1, workload.phi), max_exchanges=QUICK_EXCHANGES)
    ways = flows.workload.flows(at)
    turns_s = np.stack([flows.turns_s(flow, members=flat, shares=shares) for flow in ways])
    costs_s = np.stack(
        [
            flows.costs_s(flow, own_s, members=flat, shares=shares)
            for flow, own_s in zip(ways, turns_s, strict=True)
        ]
    )
    best = costs_s.argmin(axis=0), np.arange(len(flat))
    cost_s, took_s = (
        each[best].reshape(num_choices, -1).sum(axis=-1) for each in (costs_s, turns_s)
    )
    return _Sorted(members, cost_s, took_s)
