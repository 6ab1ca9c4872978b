"""What pairs say of a ratio, without believing any of them much."""

from collections.abc import Sequence
from math import comb
from statistics import median

CONFIDENCE = 0.95


class Ratios:
    """One ratio a pair: their median, and an interval that has the true one in 95 of 100 cases.

    The interval is between two of the sorted ratios, and assumes of them only that they are
    independent (the sign test's); of fewer than six there is none.
    """

    def __init__(self, ratios: Sequence[float]) -> None:
        self.sorted = sorted(ratios)

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.sorted)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends; None of too few."""
        count, outside, below = len(self.sorted), 0.0, 0
        while outside + 2 * comb(count, below) / 2**count <= 1 - CONFIDENCE:
            outside += 2 * comb(count, below) / 2**count
            below += 1
        return (self.sorted[below - 1], self.sorted[-below]) if below else None

    def __str__(self) -> str:
        """Write it as a change in per cent."""
        change = f"{self.median - 1:+.2%}"
        if self.interval is None:
            return f"{change} (too few pairs for an interval)"
        low, high = self.interval
        return f"{change} (95 %: {low - 1:+.2%} to {high - 1:+.2%})"
