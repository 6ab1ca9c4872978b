"""The latency of a round: seconds of every phase, of a local epoch, of a cluster, of a round.

A phase takes `fixed_s + link_s / share` seconds, where a share is the fraction of the whole
link that a device has. Where the loss is computed on the device (federated averaging) the server
takes no step: no smashed data, labels or gradients travel, and nobody waits in between. In
micro-batches nobody waits for the others but for the server's update (`planning/overlap.py`).
An aggregated gradient is a broadcast, as the device-side model is: it has the whole link of each
device. The server computes it once for a cluster, beside what it computes for each device.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.overlap import (
    Aggregated,
    PartedPhases,
    overlapped_s,
    with_empty_device,
)
from edge_coordinator.planning.spectrum import Waits
from profiles.phases import Phase
from profiles.units import BITS_PER_BYTE, Counts, Floats
from runtime.wire.micro_batches import FirstSamples, num_aggregated, parted

_PARTED = (Phase.UPLOAD, Phase.DOWNLOAD)
_DOWNWARDS = (Phase.DISTRIBUTE, Phase.DOWNLOAD)


@dataclass(frozen=True)
class PhasesByShare:
    """Seconds of each phase at one cut, as the parts that do and do not depend on a share."""

    fixed_s: Floats
    """Compute, round trips, messages and learned terms, [phase, device]."""
    link_s: Floats
    """Transfer over the whole link, [phase, device]."""
    local_epochs: int
    loss_on_device: bool
    delay_s: Floats
    """Of `fixed_s`, what a transfer is under way without holding the link, [phase, device]."""
    micro_batches: int = 1
    aggregated: Aggregated | None = None
    """What is computed and sent once for a cluster, if anything is."""
    cuts: Counts | None = None
    """Where each device cuts, [device], if not all alike: such devices are given a model each."""

    @cached_property
    def waits(self) -> Waits:
        """What a cluster waits for in a round, with a last, empty device that pads clusters."""
        parts_s = with_empty_device(np.stack([self.fixed_s, self.link_s]))
        forward_s = parts_s[:, Phase.FORWARD] + parts_s[:, Phase.UPLOAD]
        backward_s = parts_s[:, Phase.DOWNLOAD] + parts_s[:, Phase.BACKWARD]
        last_s = backward_s + parts_s[:, Phase.MODEL_UPLOAD]
        epochs = self.local_epochs
        if self.loss_on_device:
            (own_fixed_s, own_link_s) = epochs * forward_s + (epochs - 1) * backward_s + last_s
            return Waits(np.ones(1), own_fixed_s[np.newaxis], own_link_s[np.newaxis])
        counts = np.array([epochs, epochs - 1, 1], dtype=np.float64)
        fixed_s, link_s = np.stack([forward_s, backward_s, last_s], axis=1)
        return Waits(counts[counts > 0], fixed_s[counts > 0], link_s[counts > 0])

    @property
    def parted(self) -> PartedPhases:
        """The same, for turns in micro-batches."""
        every = (self.fixed_s, self.link_s, self.delay_s)
        return PartedPhases(*every, self.local_epochs, self.micro_batches, self.aggregated)

    @cached_property
    def finish(self) -> Floats:
        """What a device would take by itself, [fixed or link, device], the empty one last."""
        return np.stack([self.waits.finish_fixed_s, self.waits.finish_link_s])

    @cached_property
    def distribute_s(self) -> Floats:
        """Seconds until a device has the model that is broadcast over the whole link, [device]."""
        phase = Phase.DISTRIBUTE
        return with_empty_device(self.fixed_s[phase] + self.link_s[phase])

    def distributed_s(self, *, members: Counts, shares: Floats) -> Floats:
        """Seconds until each device of the clusters has its model, [..., position]."""
        broadcast_s: Floats = self.distribute_s[members]
        if self.cuts is None:
            return broadcast_s
        own_s = with_empty_device(self.fixed_s[Phase.DISTRIBUTE])[members]
        own_s = own_s + with_empty_device(self.link_s[Phase.DISTRIBUTE])[members] / shares
        return np.where(self.are_mixed(members)[..., np.newaxis], own_s, broadcast_s)

    def are_mixed(self, members: Counts) -> NDArray[np.bool_]:
        """Whether the devices of each cluster cut at different layers, [...]."""
        if self.cuts is None:
            return np.zeros(members.shape[:-1], dtype=np.bool_)
        cuts = np.where(members >= 0, self.cuts[members], self.cuts[members[..., :1]])
        mixed: NDArray[np.bool_] = cuts.min(axis=-1) < cuts.max(axis=-1)
        return mixed

    @cached_property
    def server_s(self) -> Floats:
        """Seconds of the server for one device's mini-batch, [device]; the least there may be."""
        return with_empty_device(self.fixed_s[Phase.SERVER])

    def least_aggregated_s(self, sizes: Counts, *, or_none: bool) -> float:
        """Seconds of the server for aggregated samples, at the least, in clusters of these sizes.

        Beside `server_s` of all devices, in one local epoch; `or_none` if they may go back plainly.
        """
        if self.aggregated is None:
            return 0.0
        together_s, alone_s = self.aggregated.server_s.min(axis=-1)
        once_s = np.where(sizes > 1, together_s, alone_s)
        return float((np.minimum(once_s, sizes * alone_s) if or_none else once_s).sum())

    def step_s(self, members: Counts) -> Floats:
        """Seconds of the server's step for each device of clusters, [..., position]."""
        step_s: Floats = self.server_s[members]
        if self.aggregated is None:
            return step_s
        return step_s + self.aggregated.step_s(members)


def phase_seconds(
    fleet: Fleet,
    workload: Workload,
    *,
    cut: int,
    micro_batches: int = 1,
    batch_sizes: Floats | None = None,
    smallest: Floats | None = None,
) -> PhasesByShare:
    """Work out the seconds of every phase at a cut, or at its own, for every device by itself.

    `batch_sizes` are samples, [device], if not the workload's; `smallest` its cluster's fewest.
    """
    batch, rows, cuts = workload.batch_size, np.arange(fleet.num_devices), fleet.cuts_by(cut)
    times = np.ones(len(rows)) if batch_sizes is None else batch_sizes / batch
    fixed_s, link_s, delay_s = np.zeros((3, len(Phase), fleet.num_devices))
    forward_s = batch * fleet.device_forward_s[rows, cuts]
    fixed_s[Phase.FORWARD] = forward_s + _encode_s(fleet, workload, cuts=cuts)
    fixed_s[Phase.BACKWARD] = batch * fleet.device_backward_s[rows, cuts]
    fixed_s *= times
    if not workload.loss_on_device:
        server_s = batch * (workload.server.forward_s[cuts] + workload.server.backward_s[cuts])
        further_s = (micro_batches - 1) * workload.server_part_s
        fixed_s[Phase.SERVER] = times * server_s + workload.server_device_s + further_s
    for phase, whole in transfer_bits(workload, cut=cuts, micro_batches=micro_batches).items():
        bits, count = (whole * times, micro_batches) if phase in _PARTED else (whole, 1)
        link_s[phase] = bits / (fleet.down_bps if phase in _DOWNWARDS else fleet.up_bps)
        num_messages = count * np.ceil(bits / count / (workload.message_bytes * BITS_PER_BYTE))
        delay_s[phase] = (bits > 0) * fleet.round_trip_s / 2
        fixed_s[phase] = delay_s[phase] + num_messages * fleet.message_s
    seconds = PhasesByShare(
        fixed_s=fleet.scale * fixed_s + ((fixed_s + link_s) > 0) * fleet.added_s,
        link_s=fleet.scale * link_s,
        local_epochs=workload.local_epochs,
        loss_on_device=workload.loss_on_device,
        delay_s=fleet.scale * delay_s + (delay_s > 0) * fleet.added_s,
        micro_batches=micro_batches,
        cuts=fleet.cuts,
    )
    return _aggregated(seconds, fleet, workload, cut=cut, sizes=batch * times, smallest=smallest)


def _aggregated(
    seconds: PhasesByShare,
    fleet: Fleet,
    workload: Workload,
    *,
    cut: int,
    sizes: Floats,
    smallest: Floats | None,
) -> PhasesByShare:
    """Take out of each device's seconds what is computed and sent once for a cluster.

    It is a share of the smallest mini-batch of its cluster; `sizes` are those of the devices. For a
    device alone these samples go back as the others do.
    """
    if not workload.num_aggregated(cut):
        return seconds
    least, where = np.unique(np.round(sizes if smallest is None else smallest), return_inverse=True)
    count = np.array([num_aggregated(workload.phi, [int(each)] * 2) for each in least])[where]
    server, cuts = workload.server, fleet.cuts_by(cut)
    forward_s, backward_s = (
        count * each[cuts] * fleet.scale[Phase.SERVER]
        for each in (server.forward_s, server.backward_s)
    )
    fixed_s, link_s = seconds.fixed_s.copy(), seconds.link_s.copy()
    fixed_s[Phase.SERVER] -= backward_s
    broadcast_s = link_s[Phase.DOWNLOAD] * count / sizes
    fixed_s[Phase.DOWNLOAD] += broadcast_s
    link_s[Phase.DOWNLOAD] -= broadcast_s
    once_s = np.stack([forward_s + backward_s, backward_s])
    parts, batch = seconds.micro_batches, workload.batch_size
    of_equal = workload.num_aggregated(cut)  # Micro-batches have none of other sizes.
    first = FirstSamples.of(of_equal, micro_batches=parts, batch_size=batch)
    apart = Aggregated(once_s, broadcast_s, parted(batch, parts, first), first)
    return replace(seconds, fixed_s=fixed_s, link_s=link_s, aggregated=apart)


def cluster_latency_s(seconds: PhasesByShare, *, members: Counts, shares: Floats) -> Floats:
    """Seconds of each cluster: distribution, then L local epochs; a round is their sum.

    Both arrays are [..., position]; a member is an index into the devices, or -1 for none
    (its share must be positive all the same). Returns [...].
    """
    distribute_s = seconds.distributed_s(members=members, shares=shares)
    if seconds.micro_batches > 1:
        return overlapped_s(seconds.parted, members=members, shares=shares, start_s=distribute_s)
    server_s = seconds.step_s(members).sum(axis=-1)
    waited_s = seconds.waits.of(members).total_s(shares)
    latency_s: Floats = distribute_s.max(axis=-1) + seconds.local_epochs * server_s + waited_s
    return latency_s


def turn_s(seconds: PhasesByShare, *, members: Counts, shares: Floats, overhead_s: float) -> Floats:
    """Seconds of each cluster's turn: its latency, and what was learned of turns besides, [...].

    Waiting for several costs more than their means say, or less where each is the slowest in
    another phase; but no turn ends before any of its devices could have ended it alone.
    """
    latency_s = cluster_latency_s(seconds, members=members, shares=shares)
    if seconds.micro_batches > 1:
        least_s: Floats = _computing_s(seconds)[members].max(axis=-1)
        return np.maximum(least_s, latency_s + overhead_s)
    server_s = seconds.local_epochs * seconds.step_s(members).sum(axis=-1)
    waits = seconds.waits.of(members)
    own_s = seconds.distribute_s[members] + np.tensordot(waits.counts, waits.at(shares), axes=1)
    turns_s: Floats = np.maximum(latency_s + overhead_s, own_s.max(axis=-1) + server_s)
    return turns_s


def round_s(
    seconds: PhasesByShare, workload: Workload, *, members: Counts, shares: Floats
) -> Floats:
    """Seconds of each round, [...], its clusters in turn; arrays are [..., cluster, position]."""
    overhead_s = workload.cluster_overhead_s
    turns_s = turn_s(seconds, members=members, shares=shares, overhead_s=overhead_s)
    rounds_s: Floats = turns_s.sum(axis=-1) + workload.round_overhead_s
    return rounds_s


def device_phase_s(seconds: PhasesByShare, *, members: Counts, shares: Floats) -> Floats:
    """Seconds of each phase of one cluster's devices in one local epoch, [phase, position].

    The cluster waits for the slowest distribution, and for the sum of the server's seconds.
    """
    link_s = seconds.link_s[:, members]
    divided_s = link_s / shares
    if not seconds.are_mixed(members):
        divided_s[Phase.DISTRIBUTE] = link_s[Phase.DISTRIBUTE]  # a broadcast has the whole link
    phase_s: Floats = seconds.fixed_s[:, members] + divided_s
    phase_s[Phase.SERVER] = seconds.step_s(members)
    return phase_s


def _computing_s(seconds: PhasesByShare) -> Floats:
    """What a device computes in a turn, [device], the empty one last: no turn takes less."""
    epoch_s = seconds.fixed_s[Phase.FORWARD] + seconds.fixed_s[Phase.BACKWARD]
    return with_empty_device(seconds.local_epochs * epoch_s)


def transfer_bits(
    workload: Workload, *, cut: int | Counts, micro_batches: int = 1
) -> dict[Phase, Floats]:
    """Bits of a device in each phase that goes over its link, of one local epoch.

    Shaped as `cut` is: of one device, or [device].
    """
    if workload.wire is not None:
        label_bits = workload.batch_size * workload.label_bits
        return workload.wire.transfer_bits(
            cut=cut,
            label_bits=label_bits,
            loss_on_device=workload.loss_on_device,
            micro_batches=micro_batches,
        )
    model = np.asarray(workload.cuts.device_model_bits[cut])
    models = {Phase.DISTRIBUTE: model, Phase.MODEL_UPLOAD: model}
    if workload.loss_on_device:
        return models
    smashed = workload.batch_size * workload.cuts.smashed_bits[cut]
    labels = workload.batch_size * workload.label_bits
    return models | {
        Phase.UPLOAD: smashed + labels,
        Phase.DOWNLOAD: np.where(workload.cuts.learns[cut], smashed, 0.0),
    }


def _encode_s(fleet: Fleet, workload: Workload, *, cuts: Counts) -> Floats:
    """Seconds of encoding a mini-batch at the speed of a device's own layers, [device]."""
    encode_s = np.zeros(fleet.num_devices)
    if workload.wire is None or workload.loss_on_device:
        return encode_s
    flop, forward_s = workload.cuts.device_forward_flop[cuts], fleet.device_forward_s
    own_s = workload.wire.encode_flop[cuts] * forward_s[np.arange(fleet.num_devices), cuts]
    return np.divide(own_s, flop, out=encode_s, where=flop > 0)
