"""A price of the link parts the devices of a cluster: what is left is to take the cheapest."""

from collections.abc import Callable

import numpy as np

from edge_coordinator.planning.bound.relaxation import Boxes
from edge_coordinator.planning.spectrum import Flags
from profiles.units import Counts, Floats

NEVER_S = 1e12
"""The cost of a device in a box that it does not fit into."""


def by_link_price(
    boxes: Boxes, prices: Floats, *, size: int, tangents: int
) -> tuple[Floats, Floats]:
    """Bound the cost less the prices of any cluster of a size by a price of the link, both [box].

    The bound is concave in that price and consists of straight lines: the next one to try, so many
    times, is where the tangents of the two nearest cross. Every price gives a bound.
    """

    def at(link_price_s: Floats) -> tuple[Floats, Floats]:
        sums_s, used, _ = cheapest(boxes, prices, link_price_s=link_price_s, size=size)
        return sums_s - link_price_s, used - 1

    best_s, best = best_tangent(at, most=boxes.high_s.sum(axis=1), tangents=tangents)
    return boxes.low_s.sum(axis=1) + best_s, best


def best_tangent(
    at: Callable[[Floats], tuple[Floats, Floats]], *, most: Floats, tangents: int
) -> tuple[Floats, Floats]:
    """Raise concave functions of a price of up to `most`; give what they reach, and where.

    `at` says what they are at prices, and how they rise.
    """
    low, high = np.zeros(most.shape), most
    (low_s, rising), (high_s, falling) = at(low), at(high)
    best_s, best = np.maximum(low_s, high_s), np.where(low_s > high_s, low, high)
    for _ in range(tangents):
        crosses = (rising > 0) & (falling < 0)
        height_s = high_s - low_s + rising * low - falling * high
        middle = np.divide(height_s, rising - falling, out=low.copy(), where=crosses)
        middle = np.clip(middle, low, high)
        middle_s, slope = at(middle)
        best = np.where(middle_s > best_s, middle, best)
        best_s = np.maximum(best_s, middle_s)
        is_low = slope > 0
        low, low_s, rising = np.where(is_low, (middle, middle_s, slope), (low, low_s, rising))
        high, high_s, falling = np.where(is_low, (high, high_s, falling), (middle, middle_s, slope))
    return best_s, best


def cheapest(
    boxes: Boxes, prices: Floats, *, link_price_s: Floats, size: int
) -> tuple[Floats, Floats, Counts]:
    """Choose the devices that cost least at these prices.

    Gives what they cost together, [box], the shares that they need, [box], and who they are,
    [box, position].
    """
    costs_s = costs_of(boxes, prices, link_price_s=link_price_s)
    devices = np.argpartition(costs_s, size - 1, axis=-1)[:, :size]
    sums_s = np.take_along_axis(costs_s, devices, axis=-1).sum(axis=-1)
    used = np.take_along_axis(boxes.needed, devices, axis=-1).sum(axis=-1)
    return sums_s, used, devices


def costs_of(boxes: Boxes, prices: Floats, *, link_price_s: Floats) -> Floats:
    """What each device costs of a link at this price, less its own, [box, device]."""
    costs_s: Floats = link_price_s[:, np.newaxis] * boxes.needed - prices
    costs_s[boxes.impossible] = NEVER_S
    return costs_s


def by_price(
    needed: Floats, whole: Floats, unable: Flags, prices: Floats, *,
    most: Floats, size: int, tangents: int,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Bound the cost less the prices of any cluster of a size, and the price that says so.

    Its devices need no more than the whole together: `needed` and `unable` are [..., device], all
    others [...].
    """

    def at(rate: Floats) -> tuple[Floats, Floats]:
        costs_s = rate[..., np.newaxis] * needed - prices
        costs_s[unable] = NEVER_S
        devices = np.argpartition(costs_s, size - 1, axis=-1)[..., :size]
        sums_s = np.take_along_axis(costs_s, devices, axis=-1).sum(axis=-1)
        used = np.take_along_axis(needed, devices, axis=-1).sum(axis=-1)
        return sums_s - rate * whole, used - whole

    return best_tangent(at, most=np.broadcast_to(most, whole.shape), tangents=tangents)
