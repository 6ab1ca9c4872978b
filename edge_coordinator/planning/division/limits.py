"""How many samples devices may have, and what they do within some seconds."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from edge_coordinator.planning.division.device_turns import DeviceTurns
from profiles.units import Counts, Floats

LEAST_TIMES = 0.25
"""Of a mini-batch, which no device is left without that does it in time."""
ROUNDING = 1e-9
TINY = 1e-12


@dataclass(frozen=True)
class SampleLimits:
    """How many samples devices may have, in mini-batches of the job, all [device].

    A device may be listed several times, with several cuts, one after another.
    """

    least: Floats
    most: Floats
    devices: Counts
    """Which device each is."""

    @property
    def own(self) -> Floats:
        """What each brings to its cluster's: its mini-batch, or less if it has less, [device]."""
        return np.minimum(self.most, 1.0)

    def of_devices(self, rows: Counts) -> "SampleLimits":
        """Pick some of them."""
        return SampleLimits(self.least[rows], self.most[rows], self.devices[rows])

    def not_starved(
        self, turns: DeviceTurns, times_s: Floats, *, share: float, sample: float
    ) -> "SampleLimits":
        """Leave each half of what it does with an equal share of the link, or a quarter mini-batch.

        Of whole samples, each `sample` mini-batches, in the time that all need for all of them so,
        each cut as is best for it; one of the `times_s`. Where the fastest have the link alone a
        cluster trains on their data alone.
        """
        done = done_by(turns, times_s, share=share)
        done = np.clip(done, self.least, self.most)
        first = np.flatnonzero(np.diff(self.devices, prepend=-1))
        best = np.maximum.reduceat(done, first, axis=-1)
        enough = (best.sum(axis=-1) >= self.own[first].sum()).argmax()
        least = np.minimum(done[enough] / 2, LEAST_TIMES)
        whole = np.floor(least / sample + ROUNDING) * sample
        return replace(self, least=np.clip(whole, self.least, self.most))


class LimitsOf(Protocol):
    """Says how many samples devices may have in clusters of mixed cuts, or of one."""

    def __call__(self, *, is_mixed: bool) -> SampleLimits | None:
        """None where mini-batches are of one size."""
        ...


def done_by(turns: DeviceTurns, times_s: Floats, *, share: float) -> Floats:
    """Samples that are done in these times with a share, in mini-batches, [time, device]."""
    done = np.full((len(times_s), turns.num_devices), np.inf)
    for fixed_s, sample_s, link_s, sample_link_s in zip(*turns.parts, strict=True):
        room_s = times_s[:, np.newaxis] - (fixed_s + link_s / share)
        np.minimum(done, room_s / np.maximum(sample_s + sample_link_s / share, TINY), out=done)
    return done


def shares_within(turns: DeviceTurns, within_s: Floats, sizes: Floats) -> Floats:
    """Shares that devices need to be done, [...]; infinite where no link is enough."""
    room_s = within_s - turns.fixed_s - sizes * turns.sample_s
    links_s = turns.link_s + sizes * turns.sample_link_s
    needs = np.where(links_s > 0, np.inf, 0.0) + np.zeros(room_s.shape)
    shares = np.divide(links_s, room_s, out=needs, where=room_s > TINY)
    shares = np.where(room_s < -ROUNDING * within_s, np.inf, shares)
    most: Floats = shares.max(axis=0)
    return most


def done_within(forms: DeviceTurns, within_s: Floats, shares: Floats) -> tuple[Floats, Floats]:
    """Samples that are done with shares, and how many more with more of it, both [..., share]."""
    sizes, slopes = np.full(shares.shape, np.inf), np.zeros(shares.shape)
    for fixed_s, sample_s, link_s, sample_link_s in zip(*forms.parts, strict=True):
        room_s = within_s - fixed_s
        each_s = np.maximum(sample_s * shares + sample_link_s, TINY)
        of_form = (shares * room_s - link_s) / each_s
        slope = (room_s * sample_link_s + link_s * sample_s) / each_s**2
        is_less = of_form < sizes
        sizes = np.where(is_less, of_form, sizes)
        slopes = np.where(is_less, slope, slopes)
    return sizes, slopes
