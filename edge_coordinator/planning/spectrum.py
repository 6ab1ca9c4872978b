"""Link shares: how the devices of a cluster divide the link, for many clusters at once.

A share is a fraction of the whole link. First the link is divided so that the last device
finishes as early as possible; then pieces of it change hands for as long as that shortens what
the cluster waits for, which is not the same: the slowest forward and the slowest backward may
be two different devices.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edge_coordinator.planning.plan import InfeasiblePlanError
from profiles.link import IndependentLinks, Medium, SharedLink, Subcarriers
from profiles.units import Counts, Floats

Flags = NDArray[np.bool_]

NEWTON_STEPS = 8
EXCHANGE_QUANTA = (1 / 4, 1 / 16, 1 / 64)
"""Sizes of the pieces of a shared link that change hands, relative to an equal share."""


@dataclass(frozen=True)
class Waits:
    """The moments at which a cluster waits for its slowest device.

    Wait w comes `counts[w]` times a round and takes `fixed_s + link_s / share` seconds, which
    are [wait, ..., position]; a position without a device is zero in both.
    """

    counts: Floats
    fixed_s: Floats
    link_s: Floats

    def of(self, members: Counts) -> "Waits":
        """Pick the devices of some clusters out of waits that are [wait, device]."""
        return Waits(self.counts, self.fixed_s[:, members], self.link_s[:, members])

    def between(self, other: "Waits", times: Floats) -> "Waits":
        """Go so many times as far as from these to other waits; `times` is [..., position]."""
        return Waits(
            self.counts,
            self.fixed_s + times * (other.fixed_s - self.fixed_s),
            self.link_s + times * (other.link_s - self.link_s),
        )

    def in_a_round(self) -> "Waits":
        """Count each wait as often as it comes in a round."""
        if (self.counts == 1).all():
            return self
        fixed_s, link_s = (
            each * self.counts.reshape(-1, *[1] * (each.ndim - 1))
            for each in (self.fixed_s, self.link_s)
        )
        return Waits(np.ones_like(self.counts), fixed_s, link_s)

    def of_rows(self, rows: Counts | Flags) -> "Waits":
        """Pick some clusters out of waits that are [wait, cluster, position]."""
        return Waits(self.counts, self.fixed_s[:, rows], self.link_s[:, rows])

    def at(self, shares: Floats) -> Floats:
        """Seconds of each wait for each device, [wait, ..., position]."""
        seconds: Floats = self.fixed_s + self.link_s / shares
        return seconds

    def total_s(self, shares: Floats) -> Floats:
        """Seconds that a cluster waits in a round, [...]."""
        return np.tensordot(self.counts, self.at(shares).max(axis=-1), axes=1)

    @cached_property
    def finish_fixed_s(self) -> Floats:
        """What a device would take by itself, without its transfers, [..., position]."""
        return np.tensordot(self.counts, self.fixed_s, axes=1)

    @cached_property
    def finish_link_s(self) -> Floats:
        """What its transfers would add over the whole link, [..., position]."""
        return np.tensordot(self.counts, self.link_s, axes=1)


def allocate_shares(waits: Waits, *, present: Flags, medium: Medium, max_exchanges: int) -> Floats:
    """Divide the link among the devices of each cluster, [cluster, position].

    A position without a device is given a share of 1.
    """
    fixed_s, link_s = waits.finish_fixed_s, waits.finish_link_s
    match medium:
        case IndependentLinks():
            return np.ones_like(fixed_s)
        case Subcarriers(num_subcarriers):
            counts = allocate_subcarriers(
                fixed_s=fixed_s,
                link_s=link_s * num_subcarriers,
                present=present,
                num_subcarriers=num_subcarriers,
            )
            shares = np.where(present, counts / num_subcarriers, 1.0)
            quanta: tuple[float, ...] = (1 / num_subcarriers,)
        case SharedLink():
            shares = allocate_fractions(fixed_s=fixed_s, link_s=link_s, present=present)
            quanta = tuple(quantum / present.shape[-1] for quantum in EXCHANGE_QUANTA)
    waits = waits.in_a_round()
    for quantum in quanta:
        shares = exchange_shares(
            waits,
            shares=shares,
            present=present,
            quantum=quantum,
            max_exchanges=-(-max_exchanges // len(quanta)),
        )
    return shares


def allocate_subcarriers(
    *, fixed_s: Floats, link_s: Floats, present: Flags, num_subcarriers: int
) -> Counts:
    """Give subcarriers one at a time to the device that would finish last.

    All arrays are [cluster, position], `link_s` on one subcarrier. Every device gets at least
    one. Done all at once: the spare subcarriers go where the latest finish times are, over all
    devices and all counts that a device could have had to finish with; the first device wins
    a tie.
    """
    check_subcarriers(present, num_subcarriers)
    most = num_subcarriers - present.sum(axis=-1).min(initial=num_subcarriers)
    counts = np.arange(1, most + 2)
    finish_s = fixed_s[..., np.newaxis] + link_s[..., np.newaxis] / counts
    return given_out(finish_s, present=present, number=num_subcarriers - present.sum(axis=-1))


def given_out(last: Floats, *, present: Flags, number: Counts) -> Counts:
    """Give pieces one at a time to the device that is last, after one to each, [cluster, position].

    `last` says how late a device is that has one, two, and so on, [cluster, position, number],
    falling; a cluster has so many pieces beyond one for each, [cluster].
    """
    number = number[:, np.newaxis]
    last = np.where(present[..., np.newaxis], last, -np.inf)
    ordered = np.sort(last.reshape(len(last), -1), axis=-1)
    threshold = np.take_along_axis(ordered, ordered.shape[-1] - number - 1, axis=-1)
    later = (last > threshold[..., np.newaxis]).sum(axis=-1)
    equal = (last == threshold[..., np.newaxis]).sum(axis=-1)
    left = number - later.sum(axis=-1, keepdims=True)
    ties = np.clip(left - (equal.cumsum(axis=-1) - equal), 0, equal)
    pieces: Counts = present + later + ties
    return pieces


def allocate_fractions(*, fixed_s: Floats, link_s: Floats, present: Flags) -> Floats:
    """Divide the whole link so that all devices finish at once; arrays are [..., position].

    Finishing together at `finish_s` takes shares of `link_s / (finish_s - fixed_s)`, and these
    must sum to 1. The inverse of their sum is concave in `finish_s`, so that Newton's steps
    from below never overshoot. Clusters of nobody, as swaps that are tried leave, have shares too.
    """
    last_s = (fixed_s + link_s).max(axis=-1, keepdims=True)
    # A transfer that vanishes beside the whole would divide by nothing.
    counts = present | ~present.any(axis=-1, keepdims=True)
    link_s = np.where(counts, np.maximum(link_s, np.maximum(1e-9 * last_s, 1e-12)), 0.0)
    finish_s = (fixed_s + link_s).max(axis=-1, keepdims=True)
    for _ in range(NEWTON_STEPS):
        shares = link_s / (finish_s - fixed_s)
        total = shares.sum(axis=-1, keepdims=True)
        slope = (shares / (finish_s - fixed_s)).sum(axis=-1, keepdims=True)
        finish_s = finish_s + total * (total - 1) / slope
    shares = link_s / (finish_s - fixed_s)
    return np.where(present, shares / shares.sum(axis=-1, keepdims=True), 1.0)


def exchange_shares(
    waits: Waits, *, shares: Floats, present: Flags, quantum: float, max_exchanges: int
) -> Floats:
    """Move `quantum` of the link to a device that is waited for, while the cluster gains by it.

    Shares are [cluster, position]. A device keeps at least `quantum`.
    """
    shares = shares.copy()
    if len(waits.counts) == 1:  # then finishing together is best
        return shares
    waits, active = waits.in_a_round(), np.arange(len(shares))
    for _ in range(max_exchanges):
        gain_s, taker, giver = _best_exchange(
            waits, shares=shares[active], present=present[active], quantum=quantum
        )
        gains = gain_s > 1e-12
        if not gains.all():
            active, taker, giver = active[gains], taker[gains], giver[gains]
            waits = waits.of_rows(gains)
        if not active.size:
            break
        shares[active, taker] += quantum
        shares[active, giver] -= quantum
    return shares


def _best_exchange(
    waits: Waits, *, shares: Floats, present: Flags, quantum: float
) -> tuple[Floats, Counts, Counts]:
    """Find each cluster's best single exchange: seconds gained, taker and giver, all [cluster].

    Only a device that is the slowest in some wait is worth a larger share. The giver only gets
    slower, so that the maximum over the others may count it as it was.
    """
    now_s = waits.at(shares)  # [wait, cluster, position]
    can_give = present & (shares > 1.5 * quantum)
    less_s = waits.at(shares - quantum * can_give)
    more_s = waits.at(shares + quantum)
    takers = now_s.argmax(axis=-1)  # the slowest of each wait, [wait, cluster]
    takes = takers[..., np.newaxis] == np.arange(shares.shape[-1])
    # All [taker, wait, cluster, position], the last the giver.
    others_s = np.where(takes[:, np.newaxis], more_s, now_s).max(axis=-1, keepdims=True)
    after_s = np.maximum(others_s, less_s).sum(axis=1)
    after_s = np.where(can_give & ~takes, after_s, np.inf)
    flat_s = after_s.swapaxes(0, 1).reshape(len(shares), -1)
    best, rows = flat_s.argmin(axis=-1), np.arange(len(shares))
    taker, giver = np.divmod(best, shares.shape[-1])
    before_s = now_s.max(axis=-1).sum(axis=0)
    return before_s - flat_s[rows, best], takers[taker, rows], giver


def equal_shares(*, present: Flags, medium: Medium) -> Floats:
    """Divide the link by the number of devices; of whole subcarriers the first devices gain."""
    num_devices = present.sum(axis=-1, keepdims=True)
    match medium:
        case IndependentLinks():
            shares = np.ones(present.shape)
        case SharedLink():
            shares = np.broadcast_to(1.0 / num_devices, present.shape)
        case Subcarriers(num_subcarriers):
            check_subcarriers(present, num_subcarriers)
            each, rest = np.divmod(num_subcarriers, num_devices)
            shares = (each + (np.cumsum(present, axis=-1) <= rest)) / num_subcarriers
    return np.where(present, shares, 1.0)


def check_subcarriers(present: Flags, num_subcarriers: int) -> None:
    """InfeasiblePlanError unless every device of each cluster can have a subcarrier."""
    most = int(present.sum(axis=-1).max(initial=0))
    if most > num_subcarriers:
        raise InfeasiblePlanError(f"{most} devices in a cluster, {num_subcarriers} subcarriers")
