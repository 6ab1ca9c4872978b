"""Into how many micro-batches the mini-batches of each cluster go, by the latency model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from edge_coordinator.planning.bound.lower_bound import lower_bound_s, together_s
from edge_coordinator.planning.clusters.clustering import in_order
from edge_coordinator.planning.clusters.descent import descended
from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.latency import PhasesByShare, phase_seconds, turn_s
from edge_coordinator.planning.plan import ClusterPlan
from edge_coordinator.planning.pricing import QUICK_EXCHANGES, THOROUGH_EXCHANGES, Pricer
from profiles.phases import SecondsByPhase
from profiles.units import Counts, Floats

LEAST_GAIN = 0.002
"""Of a turn, by which each further micro-batch has to shorten it: a frame is not for nothing."""


@dataclass(frozen=True)
class Parting:
    """How a cluster's mini-batches are parted, and what its turn takes so."""

    micro_batches: int
    seconds: PhasesByShare
    turn_s: float
    overhead_s: float
    """Of `turn_s`, what was learned of turns beyond their phases."""
    whole_batches_s: float | None
    """What it would take with whole mini-batches, where these are not whole."""

    def plan(
        self,
        *,
        devices: tuple[str, ...],
        shares: tuple[float, ...],
        phases: tuple[SecondsByPhase, ...],
        batch_sizes: tuple[int, ...],
    ) -> ClusterPlan:
        """Write down the cluster that was parted so."""
        return ClusterPlan(
            devices=devices,
            shares=shares,
            predicted_s=self.turn_s,
            phases=phases,
            micro_batches=self.micro_batches,
            overhead_s=self.overhead_s,
            whole_batches_s=self.whole_batches_s,
            batch_sizes=batch_sizes,
        )


SecondsOf = Callable[[int], PhasesByShare]
"""Seconds of every phase by the number of micro-batches."""


def seconds_by_parting(
    fleet: Fleet, workload: Workload, *, cut: int, batch_sizes: Floats | None = None
) -> SecondsOf:
    """Work out the seconds of each number of micro-batches, each once."""
    return cache(
        lambda count: phase_seconds(
            fleet, workload, cut=cut, micro_batches=count, batch_sizes=batch_sizes
        )
    )


def choose_partings(
    seconds_of: SecondsOf, workload: Workload, *, members: Counts, shares: Floats
) -> list[Parting]:
    """Choose for each cluster among the numbers of micro-batches that the workload allows.

    Members and shares are [cluster, position].
    """
    counts, overhead_s = workload.partings, workload.cluster_overhead_s
    turns_s = {
        count: turn_s(seconds_of(count), members=members, shares=shares, overhead_s=overhead_s)
        for count in sorted({1, *counts})
    }
    weighed_s = np.stack([turns_s[count] * (1 + LEAST_GAIN * count) for count in counts])
    chosen = np.array(counts)[weighed_s.argmin(axis=0)].tolist()
    return [
        Parting(
            count,
            seconds_of(count),
            float(turns_s[count][row]),
            overhead_s,
            float(turns_s[1][row]) if count > 1 else None,
        )
        for row, count in enumerate(chosen)
    ]


def regrouped(pricer: Pricer, seconds_of: SecondsOf, workload: Workload, members: Counts) -> Counts:
    """Swap devices for as long as that shortens turns in the micro-batches that these take.

    Sampling compares clusters that wait at barriers. `members` are [cluster, position]; they stay
    as they are where mini-batches stay whole, or labels count.
    """
    if workload.partings == (1,) or pricer.balance_weight:
        return members
    overhead_s = workload.cluster_overhead_s

    def partings(rows: Counts) -> list[Parting]:
        shares = pricer.shares(rows, max_exchanges=THOROUGH_EXCHANGES)
        return choose_partings(seconds_of, workload, members=rows, shares=shares)

    before = partings(members)
    counts = {each.micro_batches for each in before}

    def prices(rows: Counts) -> Floats:
        shares = pricer.shares(rows, max_exchanges=QUICK_EXCHANGES)
        own = [
            turn_s(seconds_of(count), members=rows, shares=shares, overhead_s=overhead_s)
            for count in sorted(counts)
        ]
        shortest_s: Floats = np.min(own, axis=0)
        return shortest_s

    swapped = descended(prices, members)
    after = partings(swapped)
    is_shorter = sum(each.turn_s for each in after) < sum(each.turn_s for each in before)
    return in_order(swapped) if is_shorter else members


def round_bound_s(
    fleet: Fleet, pricer: Pricer, workload: Workload, *, cut: int, members: Counts
) -> float:
    """Seconds that no round beats at a cut, in clusters of the sizes of these, [cluster, position].

    In micro-batches no turn ends before each of its devices could have ended it alone, with all of
    the link.
    """
    if workload.partings == (1,):
        return lower_bound_s(pricer, workload, members=members)
    sizes = (members >= 0).sum(axis=-1)
    alone = np.arange(fleet.num_devices)[:, np.newaxis]
    overhead_s = workload.cluster_overhead_s
    own_s = np.min(
        [
            turn_s(
                phase_seconds(fleet, workload, cut=cut, micro_batches=count),
                members=alone,
                shares=np.ones(alone.shape),
                overhead_s=overhead_s,
            )
            for count in workload.partings
        ],
        axis=0,
    )
    return together_s(own_s, sizes=sizes) + workload.round_overhead_s


def parting_reason(clusters: Sequence[ClusterPlan], workload: Workload) -> str:
    """Say what micro-batches save, or why there are none where they are asked for."""
    parted = [each for each in clusters if each.whole_batches_s is not None]
    if parted:
        saved_s = sum((each.whole_batches_s or 0.0) - (each.predicted_s or 0.0) for each in parted)
        counts = " or ".join(map(str, sorted({each.micro_batches for each in parted})))
        return f"; {counts} micro-batches save {saved_s:.3g} s"
    return f"; mini-batches stay whole: {workload.whole_batches}" if workload.whole_batches else ""
