"""The seconds of a cluster's turn in micro-batches, where computing and both transfers overlap.

A device computes forward one micro-batch after another and sends each as soon as it can; the
server takes them as they come, but none before its last update; a gradient comes back as the link
allows, and backward follows all of forward. A transfer holds the link for some time and is under
way for some more, which delays what comes after and holds up nobody.
"""

from dataclasses import dataclass

import numpy as np

from profiles.units import Floats


@dataclass(frozen=True)
class Stages:
    """Seconds of a whole mini-batch of each device in each stage, [..., position].

    A position without a device is zero in all.
    """

    forward_s: Floats
    upload_s: Floats
    """That the link is held."""
    upload_delay_s: Floats
    server_s: Floats
    download_s: Floats
    download_delay_s: Floats
    backward_s: Floats


def overlapped_epochs_s(
    stages: Stages, *, start_s: Floats, local_epochs: int, micro_batches: int
) -> Floats:
    """When each device has updated for the last time, [..., position]; `start_s` is [...].

    The server takes micro-batches in the order in which they come. What a real one gains by
    another order is little unless it is what everybody waits for.
    """
    count = micro_batches
    places = np.arange(1, count + 1)
    free_s = start_s[..., np.newaxis] + np.zeros_like(stages.forward_s)
    updated_s = np.zeros_like(start_s)
    for _ in range(local_epochs):
        # All [..., position, micro-batch].
        done_s = free_s[..., np.newaxis] + stages.forward_s[..., np.newaxis] * places / count
        sent_s = _one_after_another(done_s, stages.upload_s[..., np.newaxis] / count)
        there_s = sent_s + stages.upload_delay_s[..., np.newaxis]
        back_s = _served(there_s, stages.server_s[..., np.newaxis] / count, updated_s)
        updated_s = back_s.max(axis=(-2, -1))
        got_s = _one_after_another(back_s, stages.download_s[..., np.newaxis] / count)
        got_s = np.maximum(got_s + stages.download_delay_s[..., np.newaxis], done_s[..., -1:])
        back_done_s = _one_after_another(got_s, stages.backward_s[..., np.newaxis] / count)
        free_s = back_done_s[..., -1]
    return free_s


def _one_after_another(ready_s: Floats, each_s: Floats) -> Floats:
    """When each of a queue is done that takes `each_s` and begins when it is ready, [..., item]."""
    before_s = np.broadcast_to(each_s, ready_s.shape).cumsum(axis=-1)
    begun_s = np.maximum.accumulate(ready_s - (before_s - each_s), axis=-1)
    done_s: Floats = begun_s + before_s
    return done_s


def _served(there_s: Floats, each_s: Floats, free_at_s: Floats) -> Floats:
    """When the one server is done with each, first come first served, [..., position, item]."""
    shape = there_s.shape
    flat_s = there_s.reshape(*shape[:-2], -1)
    order = flat_s.argsort(axis=-1, kind="stable")
    ready_s = np.maximum(np.take_along_axis(flat_s, order, axis=-1), free_at_s[..., np.newaxis])
    work_s = np.broadcast_to(each_s, shape).reshape(flat_s.shape)
    work_s = np.take_along_axis(work_s, order, axis=-1)
    done_s = np.empty_like(flat_s)
    np.put_along_axis(done_s, order, _one_after_another(ready_s, work_s), axis=-1)
    return done_s.reshape(shape)
