"""What a quantity has been lately: an exponentially weighted mean and its deviation."""

import math
from dataclasses import dataclass

WEIGHT = 0.25
"""Weight of the newest value, once there are enough of them."""
SURPRISE_DEVIATIONS = 3.0
SURPRISE_FACTOR = 1.5
"""A value this many deviations and this many times off is a surprise."""


@dataclass(frozen=True)
class RunningMean:
    """Mean and variance of positive values, the late ones counting most.

    One surprise is an accident and is left out; a second on the same side means that the quantity
    has changed, and the mean begins anew with these two.
    """

    mean: float
    variance: float = 0.0
    count: int = 1
    surprise: float | None = None
    """The value before, if it was one."""

    @property
    def deviation(self) -> float:
        """Square root of the variance."""
        return math.sqrt(self.variance)

    def take(self, value: float) -> "RunningMean":
        """Move towards a new value."""
        if self._is_surprise(value):
            before = self.surprise
            if before is None or (before > self.mean) != (value > self.mean):
                return RunningMean(self.mean, self.variance, self.count, surprise=value)
            mean = (before + value) / 2
            return RunningMean(mean, (value - mean) ** 2, count=2)
        weight = max(WEIGHT, 1 / (self.count + 1))
        step = value - self.mean
        return RunningMean(
            self.mean + weight * step,
            (1 - weight) * (self.variance + weight * step * step),
            self.count + 1,
        )

    def _is_surprise(self, value: float) -> bool:
        if self.count < 3:
            return False
        is_far = abs(value - self.mean) > SURPRISE_DEVIATIONS * self.deviation
        low, high = sorted((value, self.mean))
        return is_far and high > SURPRISE_FACTOR * low


def first_or_next(before: RunningMean | None, value: float) -> RunningMean:
    """Begin a mean, or go on with it."""
    return RunningMean(value) if before is None else before.take(value)
