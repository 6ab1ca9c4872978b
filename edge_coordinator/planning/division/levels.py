"""What clusters' turns take with their link and samples divided as is best, many at once.

What a cluster can do within some seconds is looked up, for some levels of seconds. Within a level a
device with a share does as many samples as its longest form allows; a price of the link says what a
share is worth in samples, and parts the devices of a cluster from each other: at any price
a cluster does at most

    price + sum over devices of max over shares (samples - price * share),

and as much as that at the best price. A cluster takes the seconds in which that is enough.
"""

from dataclasses import dataclass

import numpy as np

from edge_coordinator.planning.division.device_turns import DeviceTurns
from edge_coordinator.planning.division.limits import (
    ROUNDING,
    TINY,
    SampleLimits,
    done_by,
    done_within,
    shares_within,
)
from profiles.link import IndependentLinks, Medium, Subcarriers
from profiles.units import Counts, Floats

NUM_LEVELS = 28
PRICES = np.concatenate([[0.0, 0.1], np.geomspace(0.3, 6.0, 13)])
"""Of the whole link, in mini-batches of a cluster's devices."""
NUM_TIMES = 40
"""To find the levels among."""
NUM_TANGENTS = 7
NEVER = -1e9
"""What a device is worth that cannot be done within a level."""
DEVICES_AT_ONCE = 400
"""More do not fit into a cache."""


@dataclass(frozen=True)
class Levels:
    """What devices are worth to clusters within some seconds."""

    levels_s: Floats
    """[level], rising."""
    worth: Floats
    """[level, device, price], the empty device last."""
    whole: Floats
    """What the link is worth, [level, price]."""

    @classmethod
    def of(
        cls, turns: DeviceTurns, medium: Medium, levels_s: Floats, *, samples: SampleLimits | None,
        width: int, prices: Floats = PRICES,
    ) -> "Levels":  # fmt: skip
        """Look all devices up; samples stay as they are if they are None."""
        if samples is None:
            worth, whole = _equal_worth(turns, medium, levels_s)
        elif isinstance(medium, IndependentLinks):
            worth, whole = _own_line_worth(turns, levels_s, samples)
        else:
            least_share = 1 / medium.num_subcarriers if isinstance(medium, Subcarriers) else 0.0
            prices = width * prices
            blocks = [
                _shared_worth(
                    turns.of_devices(block), levels_s, samples.of_devices(block), prices,
                    least_share=least_share,
                )
                for block in np.array_split(
                    np.arange(turns.num_devices), -(-turns.num_devices // DEVICES_AT_ONCE)
                )
            ]  # fmt: skip
            worth = np.concatenate(blocks, axis=1)
            whole = np.broadcast_to(prices, (len(levels_s), len(prices)))
        empty = np.zeros((len(levels_s), 1, worth.shape[-1]))
        return cls(levels_s, np.concatenate([worth, empty], axis=1), whole)

    def of_levels(self, rows: Counts) -> "Levels":
        """Pick some of them."""
        return Levels(self.levels_s[rows], self.worth[rows], self.whole[rows])

    def joined(self, other: "Levels") -> "Levels":
        """Take others in."""
        order = np.concatenate([self.levels_s, other.levels_s]).argsort(kind="stable")
        return Levels(
            *(
                np.concatenate([one, another])[order]
                for one, another in (
                    (self.levels_s, other.levels_s),
                    (self.worth, other.worth),
                    (self.whole, other.whole),
                )
            )
        )

    def left(self, level: Counts, members: Counts) -> Floats:
        """What is left, at least none if clusters can be done, [cluster]; a level for each."""
        worth = self.worth[level[:, np.newaxis], members].sum(axis=1)
        left: Floats = (self.whole[level] + worth).min(axis=-1)
        return left

    def turns_s(self, members: Counts) -> Floats:
        """Seconds that clusters need, [cluster]; members are [cluster, position].

        Of those that need more than the last level only who is longer than whom.
        """
        low, high = np.zeros(len(members), np.int64), np.full(len(members), len(self.levels_s) - 1)
        low_left, high_left = self.left(low, members), self.left(high, members)
        high = np.where(low_left >= 0, low, high)
        high_left = np.where(low_left >= 0, low_left, high_left)
        for _ in range(int(np.ceil(np.log2(len(self.levels_s))))):
            middle = (low + high) // 2
            left = self.left(middle, members)
            is_enough = left >= 0
            high, low = np.where(is_enough, middle, high), np.where(is_enough, low, middle)
            high_left, low_left = (
                np.where(is_enough, left, high_left),
                np.where(is_enough, low_left, left),
            )
        missing = np.where(low_left > NEVER / 2, -low_left, high_left)
        whole = missing + high_left
        part = np.divide(missing, whole, out=np.ones(len(members)), where=whole > 0)
        found_s = self.levels_s[low] + part * (self.levels_s[high] - self.levels_s[low])
        turns_s: Floats = np.where(high_left >= 0, found_s, self.levels_s[-1] * (1 - high_left))
        return turns_s


def levels_of(
    turns: DeviceTurns, *, samples: SampleLimits | None, medium: Medium, width: int
) -> Floats:
    """Choose levels between which clusters of `width` devices are done, but for few."""
    share = equal_share(medium, width=width)
    sizes = np.ones(1) if samples is None else samples.least
    lowest_s = np.sort(turns.at(sizes, np.ones(1)))[min(width, turns.num_devices) - 1]
    highest_s = turns.at(np.ones(1), np.full(1, share))
    if samples is not None:
        first = np.flatnonzero(np.diff(samples.devices, prepend=-1))
        highest_s = np.minimum.reduceat(highest_s, first)
    ends_s = np.maximum([lowest_s, highest_s.max()], TINY)
    if samples is None:
        return np.geomspace(ends_s[0], ends_s.max() * (1 + ROUNDING), NUM_LEVELS)
    times_s = np.geomspace(ends_s[0], ends_s.max() * (1 + ROUNDING), NUM_TIMES)
    done = np.minimum(done_by(turns, times_s, share=1.0), samples.most)
    together = np.sort(done, axis=-1)[:, -width:].sum(axis=-1)
    lowest = max(int((together >= samples.own.min() * width).argmax()) - 1, 0)
    return np.geomspace(times_s[lowest], times_s[-1], NUM_LEVELS)


def equal_share(medium: Medium, *, width: int) -> float:
    """What each of so many devices has of the link, divided evenly, into whole subcarriers."""
    match medium:
        case IndependentLinks():
            return 1.0
        case Subcarriers(number):
            return max(number // width, 1) / number
    return 1.0 / width


def _equal_worth(turns: DeviceTurns, medium: Medium, levels_s: Floats) -> tuple[Floats, Floats]:
    """Count in shares what devices take of the link, with mini-batches as they are."""
    every = DeviceTurns(*(each[:, np.newaxis] for each in turns.parts))
    within_s = levels_s[:, np.newaxis]
    if isinstance(medium, IndependentLinks):
        needed = np.where(every.at(np.ones(1), np.ones(1)) <= within_s, 0.0, np.inf)
    else:
        needed = shares_within(every, within_s, np.ones(1))
    if isinstance(medium, Subcarriers):
        number = medium.num_subcarriers
        needed = np.maximum(np.ceil(needed * number * (1 - ROUNDING)), 1) / number
    needed = np.where(needed > 1 + ROUNDING, -NEVER, needed)
    return -needed[..., np.newaxis], np.ones((len(levels_s), 1))


def _own_line_worth(
    turns: DeviceTurns, levels_s: Floats, samples: SampleLimits
) -> tuple[Floats, Floats]:
    """Count samples beyond their own that devices do over a line of their own."""
    room_s = levels_s[:, np.newaxis, np.newaxis] - turns.fixed_s - turns.link_s
    each_s = np.maximum(turns.sample_s + turns.sample_link_s, TINY)
    sizes = np.minimum((room_s / each_s).min(axis=1), samples.most)
    worth = np.where(sizes < samples.least * (1 - ROUNDING), NEVER, sizes - samples.own)
    return worth[..., np.newaxis], np.zeros((len(levels_s), 1))


def _shared_worth(
    turns: DeviceTurns,
    levels_s: Floats,
    samples: SampleLimits,
    prices: Floats,
    *,
    least_share: float,
) -> Floats:
    """Count samples beyond their own, less what their share is worth at each price.

    Samples are concave in the share, and below their tangents: where two of these cross, no fewer
    are done than can be.
    """
    # All [form, level, device, share].
    forms = DeviceTurns(*(each[:, np.newaxis, :, np.newaxis] for each in turns.parts))
    within_s = levels_s[:, np.newaxis, np.newaxis]
    least = shares_within(forms, within_s, samples.least[:, np.newaxis])
    cannot = least[..., 0] > 1 + ROUNDING
    least = np.clip(least, max(least_share, 1e-9), 1.0)
    shares = least ** (1 - np.linspace(0, 1, NUM_TANGENTS))
    sizes, slopes = done_within(forms, within_s, shares)
    sizes, slopes = _at_most(sizes, slopes, samples.most[:, np.newaxis])
    crossed, reached = _corners(shares, sizes, slopes)
    worth = np.full((*crossed.shape[1:], len(prices)), -np.inf)
    for share, size in zip(crossed, reached, strict=True):
        np.maximum(worth, size[..., np.newaxis] - prices * share[..., np.newaxis], out=worth)
    worth -= samples.own[:, np.newaxis]
    worth[cannot] = NEVER
    return worth


def _at_most(sizes: Floats, slopes: Floats, most: Floats) -> tuple[Floats, Floats]:
    return np.minimum(sizes, most), np.where(sizes >= most, 0.0, slopes)


def _corners(shares: Floats, sizes: Floats, slopes: Floats) -> tuple[Floats, Floats]:
    """Where neighbouring tangents cross, and the ends; shares and samples, [corner, ...]."""
    shares, sizes, slopes = (np.moveaxis(each, -1, 0) for each in (shares, sizes, slopes))
    rises = slopes[:-1] - slopes[1:]
    apart = np.diff(sizes - slopes * shares, axis=0)
    middle = (shares[:-1] + shares[1:]) / 2
    crossed = np.divide(apart, rises, out=middle, where=rises > TINY)
    crossed = np.clip(crossed, shares[:-1], shares[1:])
    reached = sizes[:-1] + slopes[:-1] * (crossed - shares[:-1])
    ends = [0, -1]
    return np.concatenate([shares[ends], crossed]), np.concatenate([sizes[ends], reached])
