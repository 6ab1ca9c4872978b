"""Swaps of two devices between two clusters, proposed and decided many at a time.

One sweep pairs the clusters at random and proposes a swap in each pair, in every chain: the pairs
have no cluster in common and a round is a sum over clusters, so that they are independent and are
decided together. A swap re-prices the two clusters it touches. What is drawn does not hang on what
was decided before, so it is drawn for many sweeps at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge_coordinator.planning.division.pricing import Pricer, Prices
from profiles.units import Counts, Floats

DRAWN_AT_ONCE = 2**17
"""Clusters of all chains in so many sweeps."""


@dataclass(frozen=True)
class Swaps:
    """One sweep's proposals: first one side of each swap, then the other."""

    rows: Counts
    """The clusters that swap, among those of all chains, [side and swap]."""
    places: Counts
    """Of the devices to swap, row by row, [side and swap]."""
    places_in_rows: Counts
    """The same among these rows alone."""
    least_gain_s: Floats
    """Seconds that a swap has to save to be taken; below zero it may cost some, [swap]."""


def drawn_swaps(
    start: Counts, temperatures_s: Floats, *, generator: np.random.Generator
) -> Iterator[Swaps]:
    """Draw sweeps over clusters of these sizes; temperatures are [sweep, chain]."""
    num_clusters, width = start.shape
    sizes, num_chains = (start >= 0).sum(axis=-1), temperatures_s.shape[1]
    at_once = max(DRAWN_AT_ONCE // (num_chains * num_clusters), 1)
    first = num_clusters * np.arange(num_chains)[:, np.newaxis]
    num_swaps = num_chains * (num_clusters // 2)
    row_starts = width * np.arange(2 * num_swaps)
    for begin in range(0, len(temperatures_s), at_once):
        warmth_s = temperatures_s[begin : begin + at_once]
        count = len(warmth_s)
        order = generator.random((count, num_chains, num_clusters)).argsort(axis=-1, kind="stable")
        paired = order[..., : num_clusters // 2 * 2]
        positions = (generator.random(paired.shape) * sizes[paired]).astype(np.int64)
        rows = _by_side(paired + first)
        positions = _by_side(positions)
        draws = generator.random((count, num_chains, num_clusters // 2))
        least_gains_s = least_gain_s(draws, temperature_s=warmth_s[..., np.newaxis])
        yield from map(
            Swaps,
            rows,
            rows * width + positions,
            row_starts + positions,
            least_gains_s.reshape(count, -1),
        )


def least_gain_s(draws: Floats, *, temperature_s: Floats) -> Floats:
    """Seconds that a swap has to save to be taken, by a number drawn from 0 to 1.

    So that one that saves `gain` is taken with probability 1 / (1 + exp(-gain / temperature)).
    """
    with np.errstate(divide="ignore"):
        gain_s: Floats = temperature_s * np.log(draws / (1 - draws))
    return gain_s


def _by_side(values: Counts) -> Counts:
    """Turn neighbours in the last axis into two sides, [sweep, side and swap]."""
    pairs = values.reshape(len(values), -1, 2)
    return pairs.swapaxes(1, 2).reshape(len(values), -1)


class Chains:
    """Independent samplings side by side, and the best clusters that each has seen."""

    def __init__(self, pricer: Pricer, start: Counts, *, num_chains: int) -> None:
        self.prices = Prices(pricer, int((start >= 0).sum()))
        self._members = np.tile(start, (num_chains, 1))  # [chain and cluster, position]
        self._cost_s = np.tile(self.prices(start), num_chains)
        self._best_s = self._totals_s(num_chains)
        self.scale_s = float(self._cost_s.mean())
        """Mean cost of a cluster at the start."""
        self.best = self._members.reshape(num_chains, *start.shape).copy()
        """[chain, cluster, position]."""

    def sweep(self, swaps: Swaps) -> None:
        """Take the proposed swaps that save enough."""
        flat = self._members.reshape(-1)
        half = len(swaps.least_gain_s)
        devices = flat[swaps.places]
        swapped = np.concatenate([devices[half:], devices[:half]])
        new = self._members[swaps.rows]
        new.reshape(-1)[swaps.places_in_rows] = swapped
        new_s = self.prices(new)
        saved_s = self._cost_s[swaps.rows] - new_s
        taken = saved_s[:half] + saved_s[half:] > swaps.least_gain_s
        both = np.concatenate([taken, taken])
        flat[swaps.places[both]] = swapped[both]
        self._cost_s[swaps.rows[both]] = new_s[both]
        totals_s = self._totals_s(len(self._best_s))
        better = totals_s < self._best_s
        if better.any():
            self.best[better] = self._members.reshape(self.best.shape)[better]
            self._best_s[better] = totals_s[better]

    def _totals_s(self, num_chains: int) -> Floats:
        totals_s: Floats = self._cost_s.reshape(num_chains, -1).sum(axis=-1)
        return totals_s
