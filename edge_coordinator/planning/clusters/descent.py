"""The last steps of sampling, where there are few clusters: all swaps at once, the best ones taken.

A sweep proposes swaps at random, and in few sweeps most are never proposed. Here the best swap of
every two clusters is found; those that save most are taken, none two in the same cluster, until no
swap saves anything. After a step only pairs with a cluster that has changed are looked at again.
"""

from collections.abc import Callable

import numpy as np

from profiles.units import Counts, Floats

MOST_SWAPS = 1000
"""Of all two clusters together; more are not tried."""
MOST_STEPS = 20
LEAST_GAIN = 1e-9
"""Relative to all clusters together."""


def can_descend(num_clusters: int, width: int) -> bool:
    """Tell whether the swaps of so many clusters of so many devices are few enough to try all."""
    return 0 < num_clusters * (num_clusters - 1) // 2 * width**2 <= MOST_SWAPS


def descended(
    prices: Callable[[Counts], Floats], members: Counts, *, most_steps: int = MOST_STEPS
) -> Counts:
    """Swap devices between clusters, [cluster, position], for as long as that saves anything."""
    one, other = np.triu_indices(len(members), 1)
    if not can_descend(*members.shape):
        return members
    members = members.copy()
    cost_s = prices(members)
    best = np.empty((2, len(one), members.shape[1]), members.dtype)
    best_s, gain_s = np.empty((2, len(one))), np.empty(len(one))
    changed = np.ones(len(members), np.bool_)
    for _ in range(most_steps):
        (pairs,) = np.nonzero(changed[one] | changed[other])
        both = np.stack([one[pairs], other[pairs]])
        best[:, pairs], best_s[:, pairs] = _best_swaps(prices, members[both])
        gain_s[pairs] = cost_s[both].sum(axis=0) - best_s[:, pairs].sum(axis=0)
        changed = np.zeros_like(changed)
        for pair in np.argsort(-gain_s, kind="stable").tolist():
            rows = [int(one[pair]), int(other[pair])]
            if gain_s[pair] <= LEAST_GAIN * cost_s.sum():
                break
            if not changed[rows].any():
                members[rows], cost_s[rows] = best[:, pair], best_s[:, pair]
                changed[rows] = True
        if not changed.any():
            break
    return members


def _best_swaps(prices: Callable[[Counts], Floats], pairs: Counts) -> tuple[Counts, Floats]:
    """Swap the two devices of each pair of clusters that are best swapped.

    Gives the clusters, [side, pair, position] as `pairs` are, and what each costs, [side, pair].
    """
    width = pairs.shape[-1]
    places = np.stack([np.repeat(np.arange(width), width), np.tile(np.arange(width), width)])
    swaps, sides = np.arange(width**2), np.arange(2)[:, np.newaxis]
    swapped = np.repeat(pairs[:, :, np.newaxis], width**2, axis=2)  # [side, pair, swap, position]
    devices = swapped[sides, :, swaps, places]  # [side, swap, pair]
    swapped[sides, :, swaps, places] = devices[::-1]
    costs_s = np.where((devices < 0).any(axis=0).T, np.inf, prices(swapped))
    chosen, rows = costs_s.sum(axis=0).argmin(axis=-1), np.arange(pairs.shape[1])
    return swapped[:, rows, chosen], costs_s[:, rows, chosen]
