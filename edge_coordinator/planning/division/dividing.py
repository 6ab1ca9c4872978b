"""A cluster's link and samples, divided so that all of its devices are done as early as can be.

Samples go to whoever does most of them with a little more of the link, as much as is left of it;
then the link is divided anew for whole samples, so that all are done at once.
"""

import numpy as np

from edge_coordinator.planning.division.device_turns import DeviceTurns
from edge_coordinator.planning.division.limits import ROUNDING, done_within, shares_within
from edge_coordinator.planning.spectrum import (
    NEWTON_STEPS,
    Flags,
    check_subcarriers,
    given_out,
)
from profiles.link import IndependentLinks, Medium, SharedLink, Subcarriers
from profiles.units import Counts, Floats

PIECES_OF_SHARE = 16
"""Of an equal share of a link that is shared without subcarriers, to compare devices by."""
_SHORTEST_S = 1e-12


def divide_link(turns: DeviceTurns, sizes: Floats, *, present: Flags, medium: Medium) -> Floats:
    """Give shares with which the last device is done as early as can be, [cluster, position].

    `turns` are those of the devices, [form, cluster, position], `sizes` in mini-batches. A position
    without a device is given a share of 1.
    """
    fixed_s = turns.fixed_s + sizes * turns.sample_s
    link_s = turns.link_s + sizes * turns.sample_link_s
    match medium:
        case IndependentLinks():
            return np.ones(present.shape)
        case Subcarriers(number):
            check_subcarriers(present, number)
            spare = number - present.sum(axis=-1)
            counts = np.arange(1, spare.max(initial=0) + 2)
            done_s = fixed_s[..., np.newaxis] + link_s[..., np.newaxis] * number / counts
            given = given_out(done_s.max(axis=0), present=present, number=spare)
            return np.where(present, given / number, 1.0)
        case SharedLink():
            return _fractions(fixed_s, link_s, present=present)


def _fractions(fixed_s: Floats, link_s: Floats, *, present: Flags) -> Floats:
    """Divide the whole link so that all are done at once; seconds are [form, ..., position].

    As `spectrum.allocate_fractions`, of several forms.
    """
    last_s = np.where(present, (fixed_s + link_s).max(axis=0), 0.0).max(axis=-1, keepdims=True)
    link_s = np.maximum(link_s, np.maximum(1e-9 * last_s, _SHORTEST_S))
    within_s = np.where(present, (fixed_s + link_s).max(axis=0), 0.0).max(axis=-1, keepdims=True)

    def needed(within_s: Floats) -> tuple[Floats, Floats]:
        room_s = np.maximum(within_s - fixed_s, _SHORTEST_S)
        shares = link_s / room_s
        longest = shares.argmax(axis=0)[np.newaxis]
        of_longest = np.take_along_axis(shares, longest, axis=0)[0]
        slopes = of_longest / np.take_along_axis(room_s, longest, axis=0)[0]
        return np.where(present, of_longest, 0.0), np.where(present, slopes, 0.0)

    for _ in range(NEWTON_STEPS):
        shares, slopes = needed(within_s)
        total = shares.sum(axis=-1, keepdims=True)
        within_s = within_s + total * (total - 1) / slopes.sum(axis=-1, keepdims=True)
    shares, _ = needed(within_s)
    return np.where(present, shares / shares.sum(axis=-1, keepdims=True), 1.0)


def share_out(
    turns: DeviceTurns,
    within_s: Floats,
    *,
    least: Counts,
    most: Counts,
    batch: int,
    medium: Medium,
) -> Counts:
    """Share out whole samples, [cluster, position], to clusters that take about so long, [cluster].

    `least` and `most` are samples that devices may have, 0 for no device; a cluster has `batch`
    times its devices, or as many as these may have.
    """
    shares = _shares_by_worth(turns, within_s, least=least, most=most, batch=batch, medium=medium)
    count = np.arange(1, max(int(most.max(initial=0)), 1) + 1)
    forms = DeviceTurns(*(each[..., np.newaxis] for each in turns.parts))
    done_s = forms.at(count / batch, shares[..., np.newaxis])
    return to_first_done(done_s, least=least, most=most, batch=batch)


def to_first_done(done_s: Floats, *, least: Counts, most: Counts, batch: int) -> Counts:
    """Share out samples one at a time to the first who would be done with one more.

    `done_s` is when a device is done with one, two and so on, [cluster, position, number]; of equal
    ones the first device is taken. All at once: they go to the earliest of all these moments.
    """
    count = np.arange(1, done_s.shape[-1] + 1)
    may = (count > least[..., np.newaxis]) & (count <= most[..., np.newaxis])
    flat_s = np.where(may, done_s, np.inf).reshape(len(done_s), done_s.shape[1] * count.size)
    whole = np.minimum(batch * (most > 0).sum(axis=-1), most.sum(axis=-1))
    first = np.arange(flat_s.shape[-1]) < (whole - least.sum(axis=-1))[:, np.newaxis]
    taken = np.zeros(flat_s.shape, np.bool_)
    np.put_along_axis(taken, flat_s.argsort(axis=-1, kind="stable"), first, axis=-1)
    sizes: Counts = least + (taken.reshape(done_s.shape) & may).sum(axis=-1)
    return sizes


def _shares_by_worth(
    turns: DeviceTurns, within_s: Floats, *, least: Counts, most: Counts, batch: int, medium: Medium
) -> Floats:
    """Give pieces of the link to who does most samples with another one, [cluster, position]."""
    present = most > 0
    if isinstance(medium, IndependentLinks):
        return np.ones(present.shape)
    pieces = PIECES_OF_SHARE * present.shape[-1]
    if isinstance(medium, Subcarriers):
        pieces = medium.num_subcarriers
    needed = shares_within(turns, within_s[:, np.newaxis], least / batch)
    first = np.ceil(np.minimum(needed, 1.0) * pieces * (1 - ROUNDING)).astype(np.int64)
    first = np.where(present, np.maximum(first, 1), 0)
    spare = np.maximum(pieces - first.sum(axis=-1), 0)
    more = np.arange(spare.max(initial=0) + 1)
    shares = (np.maximum(first, 1)[..., np.newaxis] + more) / pieces
    forms = DeviceTurns(*(each[..., np.newaxis] for each in turns.parts))
    done, _ = done_within(forms, within_s[:, np.newaxis, np.newaxis], shares)
    done = np.clip(done, (least / batch)[..., np.newaxis], (most / batch)[..., np.newaxis])
    gains = np.diff(done, axis=-1, append=done[..., -1:])
    given = first - present + given_out(gains, present=present, number=spare)
    return np.where(present, given / pieces, 1.0)
