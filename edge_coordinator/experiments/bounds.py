"""Figures over several seeds, of which some are bounds.

A seed that did not get somewhere within its run would have taken at least as long as it ran. To
leave it out would flatter whatever took long, so it counts with that, and the mean, a difference
and a ratio are bounds as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Write = Callable[[float], str]


@dataclass(frozen=True)
class Observed:
    """A figure; where it is a bound, the true one is as high or higher."""

    value: float
    is_bound: bool

    def text(self, write: Write) -> str:
        """Write it, and that it is a bound where it is."""
        return f"≥ {write(self.value)}" if self.is_bound else write(self.value)


@dataclass(frozen=True)
class Ratio:
    """A quotient of two figures: exact, or known from one side, or not known."""

    value: float
    is_at_least: bool
    is_at_most: bool

    @property
    def is_known(self) -> bool:
        """Whether it is known at least from one side."""
        return not (self.is_at_least and self.is_at_most)

    def text(self, write: Write) -> str:
        """Write it with the side that it is known from."""
        if not self.is_known:
            return "not known"
        side = "≥ " if self.is_at_least else "≤ " if self.is_at_most else ""
        return side + write(self.value)

    def below(self, limit: float) -> bool | None:
        """Whether it lies below a limit; None if that is not known."""
        if self.is_known and self.value < limit and not self.is_at_least:
            return True
        if self.is_known and self.value >= limit and not self.is_at_most:
            return False
        return None


def exactly(values: Sequence[float | None]) -> list[Observed | None]:
    """Take figures that are no bounds."""
    return [None if value is None else Observed(value, is_bound=False) for value in values]


def mean(values: Sequence[Observed]) -> Observed:
    """Average over the seeds: a bound as soon as one of them is."""
    return Observed(
        float(np.mean([each.value for each in values])), is_bound=any(v.is_bound for v in values)
    )


def ratio(above: Observed, below: Observed) -> Ratio:
    """Divide one figure by another."""
    return Ratio(above.value / below.value, is_at_least=above.is_bound, is_at_most=below.is_bound)


def over_seeds(values: Sequence[Observed | None], write: Write, *, missing: str) -> str:
    """Write the mean and the range of several seeds; with some bounds among them, every seed.

    `missing` says of a bound what did not happen, and stands alone where there is no figure.
    """
    known = [value for value in values if value is not None]
    if not known:
        return missing
    text = mean(known).text(write)
    num_bounds = sum(value.is_bound for value in known)
    if num_bounds == len(known):
        return f"{text} ({missing})"
    if num_bounds:
        every = ", ".join(value.text(write) for value in known)
        return f"{text} ({every}; {missing} by {num_bounds} of {len(known)})"
    lowest, highest = (write(pick(value.value for value in known)) for pick in (min, max))
    return text if lowest == highest else f"{text} ({lowest} to {highest})"
