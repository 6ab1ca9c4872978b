"""Where each device cuts: from the best cut of all, device by device, while turns get shorter.

A cluster's turn is known by what each of its devices adds at each cut: its own waits, its part of
the server's seconds, the distribution of its model. So one device's cut after another is changed
to what makes its cluster's turn shortest, in all clusters at once, with the link divided as it is;
then the link is divided anew, devices change clusters, and so on in turn for as long as that gains.
It begins at the common cut, at the best cut of each cluster, and where each device is done first;
the best that is found is kept, cluster by cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edge_coordinator.planning.clusters.clustering import (
    GibbsSchedule,
    gibbs_clusters,
    sorted_clusters,
)
from edge_coordinator.planning.cuts.cut_layer import CutChoice, choose_cut
from edge_coordinator.planning.fleet import Fleet, Workload, device_memory_bytes
from edge_coordinator.planning.form import OwnCut
from edge_coordinator.planning.latency import PhasesByShare, phase_seconds
from edge_coordinator.planning.plan import InfeasiblePlanError
from edge_coordinator.planning.pricing import QUICK_EXCHANGES, THOROUGH_EXCHANGES, Pricer
from profiles.device import DeviceState
from profiles.link import Medium
from profiles.units import Counts, Floats

MOST_ALTERNATIONS = 3
"""Of cuts and clusters."""
NUM_SWEEPS = 2
"""Through the devices of a cluster, before its link is divided anew."""
LEAST_GAIN = 0.01
"""Of a round's seconds: less is no reason to cut elsewhere."""
_OWN_WEIGHT = 1e-3
"""What a device's own seconds count beside its cluster's: of several that are waited for, one after
another has to get faster."""


def choose_cuts(
    states: Sequence[Fleet],
    workload: Workload,
    *,
    sizes: Counts,
    candidates: Sequence[int],
    schedule: GibbsSchedule,
    generator: np.random.Generator,
    own: OwnCut | None = None,
    devices: Sequence[DeviceState] = (),
) -> CutChoice:
    """Choose a cut for each of the devices in the first of the states, the present one.

    As `cut_layer.choose_cut`, which says where to begin. A cut that some device cannot have is none
    for that device alone; so there may be cuts where there is none for all.
    """
    try:
        choice = choose_cut(
            states, workload, sizes=sizes, candidates=candidates,
            schedule=schedule, generator=generator, own=own, devices=devices,
        )  # fmt: skip
    except InfeasiblePlanError:
        choice = None
    choices = Choices.of(states[0], workload.of_each_device(), candidates, devices)
    cut = choices.widest if choice is None else choice.cut
    chosen = _chosen(
        choices, cut, workload.medium, sizes=sizes, schedule=schedule, generator=generator
    )
    cuts = dict(zip(states[0].devices, choices.cuts[chosen].tolist(), strict=True))
    elsewhere = {device: other for device, other in cuts.items() if other != cut}
    return CutChoice(cut, () if choice is None else choice.prices, elsewhere)


def _chosen(
    choices: "Choices",
    cut: int,
    medium: Medium,
    *,
    sizes: Counts,
    schedule: GibbsSchedule,
    generator: np.random.Generator,
) -> Counts:
    """Improve cuts and clusters in turn, from a cut of all, as long as rounds get shorter."""

    def clustered(at: Counts) -> tuple[Counts, Pricer, float]:
        pricer = Pricer(choices.at(at), medium, label_mix=None, balance_weight=0.0)
        start = sorted_clusters(pricer, sizes=sizes)
        members = gibbs_clusters(pricer, start=start, schedule=schedule, generator=generator)
        took_s = pricer.latency_s(members, max_exchanges=THOROUGH_EXCHANGES).sum()
        return members, pricer, float(took_s)

    chosen = choices.nearest(cut)
    members, pricer, best_s = clustered(chosen)
    for _ in range(MOST_ALTERNATIONS):
        tried = _improved(choices, chosen, members, pricer)
        if (tried == chosen).all():
            break
        members, pricer, took_s = clustered(tried)
        if took_s >= (1 - LEAST_GAIN) * best_s:
            break
        chosen, best_s = tried, took_s
    return chosen


@dataclass(frozen=True)
class Choices:
    """What each device adds to a cluster's turn at each cut that it may have."""

    cuts: Counts
    """[choice]"""
    allowed: NDArray[np.bool_]
    """Whether a device can have a cut, [device, choice]."""
    seconds: tuple[PhasesByShare, ...]
    """Of all devices at each cut, [choice]."""

    @classmethod
    def of(
        cls,
        fleet: Fleet,
        workload: Workload,
        candidates: Sequence[int],
        devices: Sequence[DeviceState],
    ) -> "Choices":
        """Work them out, and what the devices' memory, engines and owners allow."""
        usable = [cut for cut in sorted(candidates) if cut not in workload.refused_cuts]
        if not usable:
            raise InfeasiblePlanError("no cut fits: " + "; ".join(workload.refused_cuts.values()))
        cuts = np.array(usable)
        ordered = sorted(devices, key=lambda state: state.device)
        deepest = [np.inf if s.deepest_cut is None else s.deepest_cut for s in ordered]
        shallowest = [state.shallowest_cut for state in ordered]
        needed_bytes = device_memory_bytes(workload)[cuts]
        allowed = needed_bytes <= fleet.free_memory_bytes[:, np.newaxis]
        allowed &= cuts <= np.array(deepest)[:, np.newaxis]
        allowed &= cuts >= np.array(shallowest)[:, np.newaxis]
        allowed |= ~allowed.any(axis=-1, keepdims=True)  # Who can have none is left out.
        seconds = tuple(phase_seconds(fleet, workload, cut=int(cut)) for cut in cuts)
        return cls(cuts, allowed, seconds)

    @property
    def widest(self) -> int:
        """The cut that the most devices can have, the shallowest of several."""
        return int(self.cuts[self.allowed.sum(axis=0).argmax()])

    def nearest(self, cut: int) -> Counts:
        """The choice of each device that is next to a cut, the deeper of two, [device]."""
        distance = np.abs(self.cuts - cut) - 0.25 * (self.cuts > cut)
        chosen: Counts = np.where(self.allowed, distance, np.inf).argmin(axis=-1)
        return chosen

    def at(self, chosen: Counts) -> PhasesByShare:
        """Seconds of all devices, each at its choice, [device]."""
        fixed_s, link_s, delay_s = (
            np.take_along_axis(
                np.stack([getattr(each, name) for each in self.seconds], axis=-1),
                chosen[np.newaxis, :, np.newaxis],
                axis=-1,
            )[..., 0]
            for name in ("fixed_s", "link_s", "delay_s")
        )
        cuts = self.cuts[chosen]
        is_mixed = cuts.min() < cuts.max()
        return replace(
            self.seconds[0],
            fixed_s=fixed_s,
            link_s=link_s,
            delay_s=delay_s,
            cuts=cuts if is_mixed else None,
        )

    @cached_property
    def counts(self) -> Floats:
        """How often a cluster waits in a round, [wait], the distribution last."""
        return np.append(self.seconds[0].waits.counts, 1.0)

    @cached_property
    def waits_fixed_s(self) -> Floats:
        """Seconds of each wait whatever the share, [wait, device, choice]."""
        each = [np.vstack([s.waits.fixed_s, s.distribute_s])[:, :-1] for s in self.seconds]
        return np.stack(each, axis=-1)

    @cached_property
    def waits_link_s(self) -> Floats:
        """Seconds of each wait over the whole link, [wait, device, choice]."""
        each = [np.vstack([s.waits.link_s, 0 * s.distribute_s])[:, :-1] for s in self.seconds]
        return np.stack(each, axis=-1)

    @cached_property
    def server_s(self) -> Floats:
        """Seconds of the server in a round, [device, choice]; never ending where none can be."""
        server_s = np.stack([s.server_s[:-1] for s in self.seconds], axis=-1)
        epochs = 0 if self.seconds[0].loss_on_device else self.seconds[0].local_epochs
        return np.where(self.allowed, epochs * server_s, np.inf)

    def waits_s(self, device: Counts, shares: Floats) -> Floats:
        """Seconds of each wait of one device of each cluster, [wait, cluster, choice]."""
        link_s = self.waits_link_s[:, device] / shares[:, np.newaxis]
        waits_s: Floats = self.waits_fixed_s[:, device] + link_s
        return waits_s


def _improved(choices: Choices, chosen: Counts, members: Counts, pricer: Pricer) -> Counts:
    """Take in each cluster the best that is found from several beginnings."""
    shares = pricer.shares(members, max_exchanges=QUICK_EXCHANGES)
    fastest = choices.waits_fixed_s + choices.waits_link_s
    alone_s = np.tensordot(choices.counts, fastest, axes=1) + choices.server_s
    starts = [chosen, _by_cluster(choices, members, shares), alone_s.argmin(axis=-1)]
    found = [_descended(choices, start, members, shares) for start in starts]
    turns_s = np.stack(
        [
            replace(pricer, seconds=choices.at(each)).latency_s(
                members, max_exchanges=QUICK_EXCHANGES
            )
            for each in (chosen, *found)
        ]
    )
    best = turns_s.argmin(axis=0)  # [cluster]
    improved = chosen.copy()
    for cluster, row in enumerate(members):
        own = row[row >= 0]
        improved[own] = (chosen, *found)[best[cluster]][own]
    return improved


def _by_cluster(choices: Choices, members: Counts, shares: Floats) -> Counts:
    """The best cut of each cluster, or what is next to it of each of its devices, [device]."""
    near = np.stack([choices.nearest(int(cut)) for cut in choices.cuts])  # [choice, device]
    present = members >= 0
    turns_s = []
    for chosen in near:
        rows = np.where(present, members, 0)
        waits_s = choices.waits_fixed_s[:, rows, chosen[rows]]
        waits_s = waits_s + choices.waits_link_s[:, rows, chosen[rows]] / shares
        server_s = np.where(present, choices.server_s[rows, chosen[rows]], 0.0).sum(axis=-1)
        longest_s = np.where(present, waits_s, 0.0).max(axis=-1)
        turns_s.append(np.tensordot(choices.counts, longest_s, axes=1) + server_s)
    best = np.array(turns_s).argmin(axis=0)  # [cluster]
    by_cluster: Counts = near[0].copy()
    for cluster, row in enumerate(members):
        own = row[row >= 0]
        by_cluster[own] = near[best[cluster], own]
    return by_cluster


def _descended(choices: Choices, start: Counts, members: Counts, shares: Floats) -> Counts:
    """Change one device's cut after another, in all clusters at once; shares stay as they are."""
    chosen, counts = start.copy(), choices.counts[:, np.newaxis, np.newaxis]
    present, rows = members >= 0, np.where(members >= 0, members, 0)
    link_s = choices.waits_link_s[:, rows, chosen[rows]] / shares
    waits_s = np.where(present, choices.waits_fixed_s[:, rows, chosen[rows]] + link_s, 0.0)
    clusters = np.arange(len(members))
    for position in [*range(members.shape[1])] * NUM_SWEEPS:
        device, is_there = rows[:, position], present[:, position]
        waits_s[:, :, position] = 0.0
        others_s = waits_s.max(axis=-1)[..., np.newaxis]  # [wait, cluster, 1]
        own_s = choices.waits_s(device, shares[:, position])
        turn_s = (counts * np.maximum(own_s, others_s)).sum(axis=0) + choices.server_s[device]
        turn_s += _OWN_WEIGHT * (counts * own_s).sum(axis=0)
        best = turn_s.argmin(axis=-1)
        stays = ~(turn_s[clusters, best] < turn_s[clusters, chosen[device]])
        best = np.where(stays, chosen[device], best)
        chosen[device[is_there]] = best[is_there]
        waits_s[:, :, position] = np.where(is_there, own_s[:, clusters, best], 0.0)
    return chosen
