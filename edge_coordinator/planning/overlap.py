"""The seconds of a cluster's turn in micro-batches, where computing and both transfers overlap.

A device computes forward one micro-batch after another and sends each as soon as it can; the
server takes them as they come, but none before its last update; a gradient comes back as the link
allows, and backward follows all of forward. A transfer holds the link for some time and is under
way for some more, which delays what comes after and holds up nobody. Where the first samples are
aggregated, their micro-batches wait for those of all devices, and come back to all at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from profiles.phases import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from profiles.units import Counts, Floats
    from runtime.wire.micro_batches import FirstSamples, Rows


_STAGES = (Phase.FORWARD, Phase.UPLOAD, Phase.SERVER, Phase.DOWNLOAD, Phase.BACKWARD)


@dataclass(frozen=True)
class Aggregated:
    """What is computed and sent once for a cluster, and in which micro-batches."""

    server_s: Floats
    """Seconds of the server for the aggregated samples of a cluster, as each device has them, in a
    cluster of several and of one alone, [several or one, device]."""
    broadcast_s: Floats
    """Of a download over the whole link, [device]."""
    rows: Sequence[Rows]
    """Of each micro-batch."""
    first: FirstSamples

    def step_s(self, members: Counts) -> Floats:
        """Seconds of the server for each device of clusters, [..., position]."""
        together_s, alone_s = with_empty_device(self.server_s)[:, members]
        count = (members >= 0).sum(axis=-1, keepdims=True)
        step_s: Floats = np.where(count > 1, together_s / np.maximum(count, 1), alone_s)
        return step_s

    @property
    def weights(self) -> Floats:
        """What part of a mini-batch each micro-batch is, [micro-batch]."""
        return np.array([len(rows) for rows in self.rows]) / self.rows[0].of

    def apart(self, first_s: Floats, rest_s: Floats) -> Floats:
        """Part what aggregated samples take, and all others, [..., position, micro-batch]."""
        weights = self.weights.copy()
        own, rest = np.split(weights, [self.first.micro_batches])
        if not len(rest):
            first_s = first_s + rest_s
        parts = [first_s[..., np.newaxis] * own / own.sum()]
        parts += [rest_s[..., np.newaxis] * rest / rest.sum()] if len(rest) else []
        return np.concatenate(parts, axis=-1)


@dataclass(frozen=True)
class PartedPhases:
    """Seconds of each phase that micro-batches part, all [phase, device]."""

    fixed_s: Floats
    link_s: Floats
    """Of transfers over the whole link."""
    delay_s: Floats
    """Of `fixed_s`, what a transfer is under way without holding the link."""
    local_epochs: int
    micro_batches: int
    aggregated: Aggregated | None

    def plain(self, apart: Aggregated) -> PartedPhases:
        """Take the same without anything aggregated."""
        fixed_s, link_s = self.fixed_s.copy(), self.link_s.copy()
        fixed_s[Phase.SERVER] += apart.server_s[1]
        fixed_s[Phase.DOWNLOAD] -= apart.broadcast_s
        link_s[Phase.DOWNLOAD] += apart.broadcast_s
        return replace(self, fixed_s=fixed_s, link_s=link_s, aggregated=None)


@dataclass(frozen=True)
class Stages:
    """Seconds of each micro-batch of each device in each stage, [..., position, micro-batch].

    Or [..., position, 1], where those of a device are all alike. A position without a device is
    zero in all.
    """

    forward_s: Floats
    upload_s: Floats
    """That the link is held."""
    upload_delay_s: Floats
    """Of any micro-batch, [..., position, 1]."""
    server_s: Floats
    download_s: Floats
    download_delay_s: Floats
    """[..., position, 1]."""
    backward_s: Floats
    micro_batches: int
    num_together: int = 0
    """Micro-batches, the first, that wait for those of all devices."""


def overlapped_s(
    seconds: PartedPhases, *, members: Counts, shares: Floats, start_s: Floats
) -> Floats:
    """Seconds of each cluster in micro-batches, [...], whose devices begin with their models.

    A device that is alone in its cluster has nobody to aggregate with.
    """
    latency_s = _parted_s(seconds, members=members, shares=shares, start_s=start_s)
    if seconds.aggregated is None:
        return latency_s
    plain = seconds.plain(seconds.aggregated)
    plain_s = _parted_s(plain, members=members, shares=shares, start_s=start_s)
    return np.where((members >= 0).sum(axis=-1) > 1, latency_s, plain_s)


def _parted_s(seconds: PartedPhases, *, members: Counts, shares: Floats, start_s: Floats) -> Floats:
    padded = with_empty_device(np.stack([seconds.fixed_s, seconds.link_s, seconds.delay_s]))
    fixed_s, link_s, delay_s = padded[:, :, members]
    busy_s = fixed_s - delay_s + link_s / shares
    stages = _stages(seconds, busy_s, delay_s, members=members)
    updated_s = overlapped_epochs_s(stages, start_s=start_s, local_epochs=seconds.local_epochs)
    model_s = busy_s[Phase.MODEL_UPLOAD] + delay_s[Phase.MODEL_UPLOAD]
    latency_s: Floats = (updated_s + model_s).max(axis=-1)
    return latency_s


def _stages(seconds: PartedPhases, busy_s: Floats, delay_s: Floats, *, members: Counts) -> Stages:
    """Part phases into micro-batches; `busy_s` and `delay_s` are [phase, ..., position]."""
    apart = seconds.aggregated
    weights = np.full(1, 1 / seconds.micro_batches) if apart is None else apart.weights
    forward_s, upload_s, server_s, download_s, backward_s = (
        busy_s[phase][..., np.newaxis] * weights for phase in _STAGES
    )
    if apart is not None:
        together_s, alone_s = with_empty_device(apart.server_s)[:, members]
        own_s, broadcast_s = together_s - alone_s, with_empty_device(apart.broadcast_s)[members]
        server_s = apart.apart(own_s + apart.step_s(members), busy_s[Phase.SERVER] - own_s)
        download_s = apart.apart(broadcast_s, busy_s[Phase.DOWNLOAD] - broadcast_s)
    return Stages(
        forward_s=forward_s,
        upload_s=upload_s,
        upload_delay_s=delay_s[Phase.UPLOAD][..., np.newaxis],
        server_s=server_s,
        download_s=download_s,
        download_delay_s=delay_s[Phase.DOWNLOAD][..., np.newaxis],
        backward_s=backward_s,
        micro_batches=seconds.micro_batches,
        num_together=0 if apart is None else apart.first.micro_batches,
    )


def overlapped_epochs_s(stages: Stages, *, start_s: Floats, local_epochs: int) -> Floats:
    """When each device has updated for the last time, [..., position]; `start_s` is so too.

    The server takes micro-batches in the order in which they come. What a real one gains by
    another order is little unless it is what everybody waits for.
    """
    free_s, updated_s = start_s, np.zeros(start_s.shape[:-1])
    count = stages.micro_batches
    forward_s = _sums(stages.forward_s, count)  # All [..., position, micro-batch].
    before_backward_s = _sums(stages.backward_s, count) - stages.backward_s
    whole_backward_s = before_backward_s[..., -1] + stages.backward_s[..., -1]
    for _ in range(local_epochs):
        done_s = free_s[..., np.newaxis] + forward_s
        sent_s = _one_after_another(done_s, stages.upload_s)
        there_s = _of_all(sent_s + stages.upload_delay_s, stages.num_together)
        back_s = _of_all(_served(there_s, stages.server_s, updated_s), stages.num_together)
        updated_s = back_s.max(axis=(-2, -1))
        if stages.num_together:
            got_s = _queued(back_s, stages.download_s, back_s.argsort(axis=-1, kind="stable"))
        else:  # They come back in the order in which they were sent.
            got_s = _one_after_another(back_s, stages.download_s)
        got_s = np.maximum(got_s + stages.download_delay_s, done_s[..., -1:])
        free_s = (got_s - before_backward_s).max(axis=-1) + whole_backward_s
    return free_s


def _of_all(at_s: Floats, num_together: int) -> Floats:
    """Have the first micro-batches wait for those of all devices, [..., position, item]."""
    if not num_together:
        return at_s
    first_s = at_s[..., :num_together].max(axis=-2, keepdims=True)
    waited_s = np.broadcast_to(first_s, (*at_s.shape[:-1], num_together))
    return np.concatenate([waited_s, at_s[..., num_together:]], axis=-1)


def _sums(each_s: Floats, count: int) -> Floats:
    """Add up so many of a queue, [..., item]; `each_s` may be [..., 1], of any of them."""
    sums_s: Floats = (
        each_s * np.arange(1, count + 1) if each_s.shape[-1] == 1 else each_s.cumsum(axis=-1)
    )
    return sums_s


def _one_after_another(ready_s: Floats, each_s: Floats) -> Floats:
    """When each of a queue is done that takes `each_s` and begins when it is ready, [..., item].

    `each_s` may be [..., 1], of any item.
    """
    before_s = _sums(each_s, ready_s.shape[-1])
    done_s: Floats = ready_s - (before_s - each_s)
    np.maximum.accumulate(done_s, axis=-1, out=done_s)
    done_s += before_s
    return done_s


def _queued(ready_s: Floats, each_s: Floats, order: Counts) -> Floats:
    """When each of a queue in some order is done, [..., item]."""
    num_items = ready_s.shape[-1]
    places = order.reshape(-1, num_items)
    places = places + num_items * np.arange(len(places))[:, np.newaxis]
    in_turn_s, work_s = ready_s.reshape(-1)[places], each_s.reshape(-1)[places]
    done_s = np.empty(ready_s.size)
    done_s[places] = _one_after_another(in_turn_s, work_s)
    return done_s.reshape(ready_s.shape)


def _served(there_s: Floats, each_s: Floats, free_at_s: Floats) -> Floats:
    """When the one server is done with each, first come first served, [..., position, item]."""
    shape = there_s.shape
    flat_s, work_s = (
        each.reshape(*shape[:-2], -1) for each in (there_s, np.broadcast_to(each_s, shape))
    )
    order = flat_s.argsort(axis=-1, kind="stable")
    ready_s = np.maximum(flat_s, free_at_s[..., np.newaxis])
    return _queued(ready_s, work_s, order).reshape(shape)


def with_empty_device(values: Floats) -> Floats:
    """Add a last device that takes nothing, which pads clusters, [..., device]."""
    return np.concatenate([values, np.zeros((*values.shape[:-1], 1))], axis=-1)
