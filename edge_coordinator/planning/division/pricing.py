"""What clusters cost: their latency once the link is divided, and how one-sided their data is."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edge_coordinator.planning.latency import PhasesByShare
from edge_coordinator.planning.spectrum import allocate_shares
from profiles.link import IndependentLinks, Medium
from profiles.units import Counts, Floats

QUICK_EXCHANGES = 2
"""Enough to compare two clusters by."""
MAX_REMEMBERED_DEVICES = 14
THOROUGH_EXCHANGES = 256
"""More than a cluster needs; exchanges stop when none gains."""


@dataclass(frozen=True)
class Pricer:
    """Prices clusters, many at once; members are [..., position], -1 for none."""

    seconds: PhasesByShare
    medium: Medium
    label_mix: Floats | None
    """Fraction of each class in a device's data, [device, class]."""
    balance_weight: float
    """How much slower a cluster counts whose labels have nothing in common with the whole."""

    def shares(self, members: Counts, *, max_exchanges: int) -> Floats:
        """Divide the link within each cluster, [..., position]."""
        rows = members.reshape(-1, members.shape[-1])
        shares = allocate_shares(
            self.seconds.waits.of(rows),
            present=rows >= 0,
            medium=self.medium,
            max_exchanges=max_exchanges,
        )
        return shares.reshape(members.shape)

    def latency_s(self, members: Counts, *, max_exchanges: int) -> Floats:
        """Seconds of each cluster, [...]."""
        if isinstance(self.medium, IndependentLinks):
            alone_s: Floats = self._slowest_s[:, members].max(axis=-1).sum(axis=0)
            alone_s += self._server_s[members].sum(axis=-1)
            return alone_s
        rows = members.reshape(-1, members.shape[-1])
        waits = self.seconds.waits.of(rows)
        shares = allocate_shares(
            waits, present=rows >= 0, medium=self.medium, max_exchanges=max_exchanges
        )
        latency_s: Floats = self.seconds.distributed_s(members=rows, shares=shares).max(axis=-1)
        latency_s = latency_s + waits.total_s(shares)
        latency_s += self._server_s[rows].sum(axis=-1)
        return latency_s.reshape(members.shape[:-1])

    @cached_property
    def _slowest_s(self) -> Floats:
        """Seconds that a device has its cluster wait with the whole link, [wait, device]."""
        waits = self.seconds.waits
        waits_s = waits.counts[:, np.newaxis] * (waits.fixed_s + waits.link_s)
        return np.concatenate([self.seconds.distribute_s[np.newaxis], waits_s])

    @cached_property
    def _server_s(self) -> Floats:
        """Seconds of the server for a device's round, [device]."""
        return self.seconds.local_epochs * self.seconds.server_s

    def cost_s(self, members: Counts, *, max_exchanges: int) -> Floats:
        """Seconds of each cluster, lengthened by the imbalance of its labels, [...]."""
        latency_s = self.latency_s(members, max_exchanges=max_exchanges)
        if self.label_mix is None or self.balance_weight == 0:
            return latency_s
        mix = imbalance(self.label_mix, members, weights=self.sample_weights(members))
        return latency_s * (1 + self.balance_weight * mix)

    @property
    def shares_out(self) -> bool:
        """Whether mini-batches are of several sizes."""
        return False

    def shared_out(self, members: Counts, *, batch: int) -> Counts:
        """Say how many samples each device has, [cluster, position]; a mini-batch is so many."""
        return batch * (members >= 0)

    def sample_weights(self, members: Counts, shares: Floats | None = None) -> Floats:
        """How large the devices' mini-batches are, relative to the job's, [..., position].

        `shares` are of the link, [..., position], once it is divided: here they are no matter.
        """
        del shares
        return (members >= 0).astype(np.float64)


class Prices:
    """Prices to compare clusters by: exact and found once where the devices are few, else quick.

    A cluster of few devices has a number: the sum of 2 to the power of each member.
    """

    def __init__(self, pricer: Pricer, num_devices: int) -> None:
        self._pricer = pricer
        remembered = 2**num_devices if num_devices <= MAX_REMEMBERED_DEVICES else 0
        self._cost_s = np.full(remembered, np.nan)

    def __call__(self, members: Counts) -> Floats:
        """Seconds of each cluster, lengthened by the imbalance of its labels, [...]."""
        if not self._cost_s.size:
            return self._pricer.cost_s(members, max_exchanges=QUICK_EXCHANGES)
        numbers = ((members >= 0) << np.maximum(members, 0)).sum(axis=-1)
        unknown = np.isnan(self._cost_s[numbers])
        if unknown.any():
            new, where = np.unique(numbers[unknown], return_index=True)
            rows = np.sort(members[unknown][where], axis=-1)
            self._cost_s[new] = self._pricer.cost_s(rows, max_exchanges=THOROUGH_EXCHANGES)
        prices: Floats = self._cost_s[numbers]
        return prices


def imbalance(label_mix: Floats, members: Counts, *, weights: Floats | None = None) -> Floats:
    """Tell how far each cluster's label mix is from the whole, 0 for equal to 1 for disjoint.

    The total variation distance, [...]. A mix is the mean of its devices' mixes, each weighed by
    the size of its mini-batch, [..., position], however much data it holds; all the same if these
    are left out.
    """
    padded = np.concatenate([label_mix, np.zeros((1, label_mix.shape[1]))])
    weights = (members >= 0).astype(np.float64) if weights is None else weights
    weighed = padded[members] * weights[..., np.newaxis]
    cluster_mix = weighed.sum(axis=-2) / weights.sum(axis=-1)[..., np.newaxis]
    distance: Floats = np.abs(cluster_mix - label_mix.mean(axis=0)).sum(axis=-1) / 2
    return distance
