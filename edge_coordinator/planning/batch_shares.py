"""How a cluster of K devices shares out its K times B samples: docs/decisions/batch-shares.md.

A device's seconds are `fixed_s + size * sample_s`. By speed, samples go one at a time to whoever
would be done first with one more, so that the last is done as early as can be. By data, sizes are
in proportion to |D_k|, rounded without favouring anybody (Webster's method). While clusters are
compared, sizes are real numbers: as good to compare by, and found for many clusters at once.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np

from edge_coordinator.planning.clusters.clustering import mixed_clusters
from edge_coordinator.planning.division.dividing_pricer import DividingPricer
from edge_coordinator.planning.division.limits import LimitsOf, SampleLimits
from edge_coordinator.planning.division.pricing import QUICK_EXCHANGES, Pricer
from edge_coordinator.planning.division.sharing_pricer import SharingPricer
from edge_coordinator.planning.fleet import Fleet, Workload, device_memory_bytes
from edge_coordinator.planning.latency import phase_seconds
from edge_coordinator.planning.plan import ClusterPlan, Plan
from profiles.units import Counts, Floats

Sharing = Literal["equal", "by_speed", "by_data"]

MOST_TIMES = 4
"""So many times the job's mini-batch a device takes at most: its speed is measured at that."""
LEAST_GAIN = 0.02
"""Of a round, that sharing by speed has to save where the plan may leave it."""


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
    batch, medium = workload.batch_size, workload.medium
    most = _most_samples(fleet, workload, cut=cut) / batch
    if sharing != "by_data" and workload.partings[-1] > 1:
        samples = None if sharing == "equal" else _samples(fleet, most, batch=batch)
        return DividingPricer.of(
            fleet, workload, cut=cut, samples=samples,
            label_mix=label_mix, balance_weight=balance_weight,
        )  # fmt: skip
    seconds = phase_seconds(fleet, workload, cut=cut)
    if sharing == "equal":
        return Pricer(seconds, medium, label_mix, balance_weight)
    doubled = np.full(fleet.num_devices, 2.0 * batch)
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


def samples_allowed(
    fleet: Fleet, workload: Workload, *, cut: int, sharing: Sharing, width: int
) -> LimitsOf:
    """Say how many samples devices may have in clusters of up to so many, of mixed cuts or of one.

    None where mini-batches are of one size.
    """
    if sharing == "equal":
        return _own_samples
    pricer = pricer_of(fleet, workload, cut=cut, sharing=sharing)
    if isinstance(pricer, DividingPricer):
        return partial(pricer.samples_of, width)
    batch = workload.batch_size
    samples = _samples(fleet, _most_samples(fleet, workload, cut=cut) / batch, batch=batch)

    def any_samples(*, is_mixed: bool) -> SampleLimits:
        del is_mixed
        return samples

    return any_samples


def _own_samples(*, is_mixed: bool) -> None:
    del is_mixed


def _samples(fleet: Fleet, most: Floats, *, batch: int) -> SampleLimits:
    devices = np.unique(fleet.devices, return_inverse=True)[1]
    return SampleLimits(np.minimum(1 / batch, most), most, devices)


def best_start(pricer: Pricer, *, alike: Counts) -> Counts:
    """Begin with devices of like finish time, or where samples are shared out mix these if shorter.

    Who is slow needs others to take its samples.
    """
    if not pricer.shares_out:
        return alike
    both = np.stack([alike, mixed_clusters(alike)])
    start: Counts = both[pricer.cost_s(both, max_exchanges=QUICK_EXCHANGES).sum(axis=-1).argmin()]
    return start


def shared_sizes(pricer: Pricer, workload: Workload, members: Counts) -> Floats | None:
    """Samples of each device, [device], in clusters of all devices; None where all have as many.

    `members` are [cluster, position]. A cluster has B times its devices, or as many as these have.
    """
    if not pricer.shares_out:
        return None
    is_there = members >= 0
    sizes = np.zeros(int(is_there.sum()))
    sizes[members[is_there]] = pricer.shared_out(members, batch=workload.batch_size)[is_there]
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
