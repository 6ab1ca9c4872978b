"""How a cluster of K devices shares out its K times B samples: docs/decisions/batch-shares.md.

A device's seconds are `fixed_s + size * sample_s`. By speed, samples go one at a time to whoever
would be done first with one more, so that the last is done as early as can be. By data, sizes are
in proportion to |D_k|, rounded without favouring anybody (Webster's method). While clusters are
compared, sizes are real numbers: as good to compare by, and found for many clusters at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_coordinator.planning.clusters.clustering import mixed_clusters
from edge_coordinator.planning.fleet import Fleet, Workload, device_memory_bytes
from edge_coordinator.planning.latency import PhasesByShare, phase_seconds
from edge_coordinator.planning.plan import ClusterPlan, Plan
from edge_coordinator.planning.pricing import QUICK_EXCHANGES, THOROUGH_EXCHANGES, Pricer
from edge_coordinator.planning.spectrum import Flags, Waits, allocate_shares
from profiles.link import IndependentLinks
from profiles.units import Counts, Floats

Sharing = Literal["equal", "by_speed", "by_data"]

MOST_TIMES = 4
"""So many times the job's mini-batch a device takes at most: its speed is measured at that."""
LEAST_GAIN = 0.02
"""Of a round, that sharing by speed has to save where the plan may leave it."""
_LEVEL_STEPS = 6
_LEAST_MISSING = 1e-9
"""Of mini-batches: what is missing less is there."""
_SHORTEST_S = 1e-12


@dataclass(frozen=True)
class SharingPricer(Pricer):
    """Prices clusters whose samples are shared out; sizes are relative to the job's mini-batch."""

    doubled: PhasesByShare
    """Seconds with twice the samples; `seconds` are those with the job's mini-batches."""
    most: Floats
    """Largest size, [device], the empty one last."""
    least: float
    """One sample."""
    num_samples: Floats | None
    """|D_k|, the empty device last, where samples go by data; None where they go by speed."""

    def shares(self, members: Counts, *, max_exchanges: int) -> Floats:
        """Divide the link within each cluster, [..., position]."""
        rows = members.reshape(-1, members.shape[-1])
        waits = self._waits(rows, self.sample_weights(rows))
        return self._divided(waits, rows, max_exchanges=max_exchanges).reshape(members.shape)

    def latency_s(self, members: Counts, *, max_exchanges: int) -> Floats:
        """Seconds of each cluster, [...], with whole mini-batches."""
        rows = members.reshape(-1, members.shape[-1])
        weights = self.sample_weights(rows)
        waits = self._waits(rows, weights)
        shares = self._divided(waits, rows, max_exchanges=max_exchanges)
        once_s, doubled_s = self.seconds.server_s[rows], self.doubled.server_s[rows]
        server_s = (once_s + (weights - 1) * (doubled_s - once_s)).sum(axis=-1)
        latency_s: Floats = (
            self.seconds.distributed_s(members=rows, shares=shares)
            + self.seconds.local_epochs * server_s
            + waits.total_s(shares)
        )
        return np.reshape(latency_s, members.shape[:-1])

    def sample_weights(self, members: Counts, shares: Floats | None = None) -> Floats:
        """How large the devices' mini-batches are, relative to the job's, [..., position].

        Before the link is divided each device is taken to have an equal share.
        """
        present = members >= 0
        divided_by = present.sum(axis=-1, keepdims=True) if shares is None else 1 / shares
        if isinstance(self.medium, IndependentLinks):
            divided_by = np.ones_like(divided_by)
        fixed_s, sample_s = self.lines(members, divided_by=divided_by)
        return _levelled(
            fixed_s,
            np.where(present, 1 / sample_s, 0.0),
            least=np.where(present, self.least, 0.0),
            most=np.where(present, self.most[members], 0.0),
        )

    def lines(self, members: Counts, *, divided_by: Floats | int) -> tuple[Floats, Floats]:
        """What a turn takes of a device, and each mini-batch's worth of samples, [..., position].

        By data these are no seconds: what is levelled is the size by |D_k|.
        """
        if self.num_samples is not None:
            sample_s = 1 / np.maximum(self.num_samples[members], 1.0)
            return -self.least / 2 * sample_s, sample_s
        once_s, doubled_s = (
            each.finish[0, members] + each.finish[1, members] * divided_by
            for each in (self.seconds, self.doubled)
        )
        sample_s = np.maximum(doubled_s - once_s, _SHORTEST_S)
        return once_s - sample_s, sample_s

    def _waits(self, rows: Counts, weights: Floats) -> Waits:
        return self.seconds.waits.of(rows).between(self.doubled.waits.of(rows), weights - 1)

    def _divided(self, waits: Waits, rows: Counts, *, max_exchanges: int) -> Floats:
        present = rows >= 0
        return allocate_shares(
            waits, present=present, medium=self.medium, max_exchanges=max_exchanges
        )


def sharings(workload: Workload, *, cut: int) -> tuple[Sharing, ...]:
    """List how samples may be shared out at a cut: what was asked for, equally if that cannot be.

    Where the plan may choose, equal comes first.
    """
    if workload.equal_batches or cut in workload.fixed_cuts or workload.loss_on_device:
        return ("equal",)
    return ("equal", "by_speed") if workload.batch_sizes == "auto" else (workload.batch_sizes,)


def pricer_of(
    fleet: Fleet,
    workload: Workload,
    *,
    cut: int,
    sharing: Sharing,
    label_mix: Floats | None = None,
    balance_weight: float = 0.0,
) -> Pricer:
    """Price clusters at a cut whose samples are shared out so."""
    seconds, medium = phase_seconds(fleet, workload, cut=cut), workload.medium
    if sharing == "equal":
        return Pricer(seconds, medium, label_mix, balance_weight)
    batch = workload.batch_size
    doubled = np.full(fleet.num_devices, 2.0 * batch)
    most = _most_samples(fleet, workload, cut=cut) / batch
    return SharingPricer(
        seconds,
        medium,
        label_mix,
        balance_weight,
        doubled=phase_seconds(fleet, workload, cut=cut, batch_sizes=doubled),
        most=np.append(most, 0.0),
        least=1 / batch,
        num_samples=np.append(fleet.num_samples, 0.0) if sharing == "by_data" else None,
    )


def best_start(pricer: Pricer, *, alike: Counts) -> Counts:
    """Begin with devices of like finish time, or where samples are shared out mix these if shorter.

    Who is slow needs others to take its samples.
    """
    if not isinstance(pricer, SharingPricer):
        return alike
    both = np.stack([alike, mixed_clusters(alike)])
    start: Counts = both[pricer.cost_s(both, max_exchanges=QUICK_EXCHANGES).sum(axis=-1).argmin()]
    return start


def shared_sizes(pricer: Pricer, workload: Workload, members: Counts) -> Floats | None:
    """Samples of each device, [device], in clusters of all devices; None where all have as many.

    `members` are [cluster, position]. A cluster has B times its devices, or as many as these have.
    """
    if not isinstance(pricer, SharingPricer):
        return None
    batch = workload.batch_size
    divided_by = 1 / pricer.shares(members, max_exchanges=THOROUGH_EXCHANGES)
    fixed_s, sample_s = pricer.lines(members, divided_by=divided_by)
    most = np.round(pricer.most[members] * batch).astype(np.int64)
    sizes = np.zeros(len(pricer.most) - 1)
    counted = _counted(fixed_s, sample_s / batch, most, present=members >= 0, batch=batch)
    sizes[members[members >= 0]] = counted[members >= 0]
    return sizes


def _counted(
    fixed_s: Floats, sample_s: Floats, most: Counts, *, present: Flags, batch: int
) -> Counts:
    """Share out whole samples, [cluster, position]: one to each, then by one to the first done.

    All at once: they go to the earliest of all moments at which some device would be done with one
    more, of equal ones to the first device.
    """
    counts = np.arange(2, most.max(initial=1) + 1)
    done_s = fixed_s[..., np.newaxis] + counts * sample_s[..., np.newaxis]
    can_be = present[..., np.newaxis] & (counts <= most[..., np.newaxis])
    done_s = np.where(can_be, done_s, np.inf).reshape(len(most), -1)
    num_present = present.sum(axis=-1)
    whole = np.minimum(batch * num_present, np.where(present, most, 0).sum(axis=-1))
    taken = np.zeros(done_s.shape, np.bool_)
    first = np.arange(done_s.shape[-1]) < (whole - num_present)[:, np.newaxis]
    np.put_along_axis(taken, done_s.argsort(axis=-1, kind="stable"), first, axis=-1)
    sizes: Counts = 1 + taken.reshape(*most.shape, len(counts)).sum(axis=-1)
    return sizes


def _levelled(fixed_s: Floats, pace: Floats, *, least: Floats, most: Floats) -> Floats:
    """Sizes with which all would be done at once, within bounds, [..., position].

    `pace` is mini-batches a second; sizes sum to the number of devices. Newton's steps towards the
    common time, most often none: what they leave undone is too little to compare clusters by.
    """
    total = (most > 0).sum(axis=-1, keepdims=True)
    whole_pace = np.maximum(pace.sum(axis=-1, keepdims=True), _SHORTEST_S)
    level_s = (total + (fixed_s * pace).sum(axis=-1, keepdims=True)) / whole_pace
    sizes: Floats = np.clip((level_s - fixed_s) * pace, least, most)
    for _ in range(_LEVEL_STEPS):
        free = np.where((least < sizes) & (sizes < most), pace, 0.0).sum(axis=-1, keepdims=True)
        missing = np.where(free > 0, total - sizes.sum(axis=-1, keepdims=True), 0.0)
        if np.abs(missing).max(initial=0.0) < _LEAST_MISSING:
            break
        level_s = level_s + missing / np.maximum(free, _SHORTEST_S)
        sizes = np.clip((level_s - fixed_s) * pace, least, most)
    return sizes


def _most_samples(fleet: Fleet, workload: Workload, *, cut: int) -> Floats:
    """What a device has, may hold in its memory, and is given at the most, [device]."""
    needed_bytes = np.maximum(device_memory_bytes(workload)[fleet.cuts_by(cut)], 1.0)
    times = fleet.free_memory_bytes / needed_bytes
    times = np.clip(times, 1.0, MOST_TIMES)
    most: Floats = np.minimum(fleet.num_samples, np.floor(times * workload.batch_size))
    return most


def sharing_reason(
    clusters: Sequence[ClusterPlan],
    workload: Workload,
    *,
    cut: int,
    saved_s: float,
) -> str:
    """Say what it saves to share samples out, or why they are not where that is asked for."""
    if sizes := [size for each in clusters for size in each.batch_sizes]:
        by = "by data" if workload.batch_sizes == "by_data" else "by speed"
        if min(sizes) == max(sizes) == workload.batch_size:
            return f"; {by} mini-batches are equal too, of {sizes[0]} samples each"
        how = f"mini-batches of {min(sizes)} to {max(sizes)} samples {by}"
        gain = f"save {saved_s:.3g} s" if saved_s >= 0 else f"cost {-saved_s:.3g} s more"
        return f"; {how} {gain}"
    if workload.equal_batches:
        return f"; mini-batches stay equal: {workload.equal_batches}"
    if cut in workload.fixed_cuts:
        return "; mini-batches stay equal: the graphs at this cut take those of one size alone"
    return "; mini-batches stay equal: by speed they save little" * (workload.batch_sizes == "auto")


def planned_sizes(plan: Plan, rows: Mapping[str, int], *, batch_size: int) -> Floats:
    """Samples of each device as a plan has them, [device]."""
    sizes = np.full(len(rows), float(batch_size))
    for cluster in plan.clusters:
        for device, size in zip(cluster.devices, cluster.batch_sizes, strict=False):
            sizes[rows[device]] = size
    return sizes
