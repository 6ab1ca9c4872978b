"""Prices clusters that wait for whole mini-batches, whose samples go by speed or by data.

A device's seconds are `fixed_s + size * sample_s`. While clusters are compared, sizes are real
numbers: as good to compare by, and found for many clusters at once.
"""

from dataclasses import dataclass

import numpy as np

from edge_coordinator.planning.division.dividing import to_first_done
from edge_coordinator.planning.division.pricing import THOROUGH_EXCHANGES, Pricer
from edge_coordinator.planning.latency import PhasesByShare
from edge_coordinator.planning.spectrum import Waits, allocate_shares
from profiles.link import IndependentLinks
from profiles.units import Counts, Floats

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
            self.seconds.distributed_s(members=rows, shares=shares).max(axis=-1)
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

    @property
    def shares_out(self) -> bool:
        """Whether mini-batches are of several sizes."""
        return True

    def shared_out(self, members: Counts, *, batch: int) -> Counts:
        """Share out whole samples, [cluster, position]; a mini-batch of the job has so many.

        One to each, then one at a time to the first who would be done with one more.
        """
        present = members >= 0
        divided_by = 1 / self.shares(members, max_exchanges=THOROUGH_EXCHANGES)
        fixed_s, sample_s = self.lines(members, divided_by=divided_by)
        most = np.where(present, np.round(self.most[members] * batch), 0).astype(np.int64)
        count = np.arange(1, max(int(most.max(initial=0)), 1) + 1)
        done_s = fixed_s[..., np.newaxis] + count * (sample_s / batch)[..., np.newaxis]
        return to_first_done(done_s, least=present.astype(np.int64), most=most, batch=batch)

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
