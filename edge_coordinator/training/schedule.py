"""Learning rates as functions of the round."""

import math
from dataclasses import dataclass
from typing import Literal

ScheduleName = Literal["constant", "step", "exponential", "cosine"]


@dataclass(frozen=True)
class Schedule:
    """What the learning rates are multiplied by in each round."""

    name: ScheduleName
    num_rounds: int
    every: int
    factor: float
    warm_up: float
    """Fraction of the rounds."""

    def rate_factor(self, round_: int) -> float:
        """Give the factor of a round; rounds count from 1.

        `step` multiplies by `factor` after every `every` rounds, `exponential` does so smoothly,
        and `cosine` falls from 1 in the first round to `factor` in the last. In the rounds of the
        warm-up the rate rises in equal steps to what it would be without.
        """
        rising = int(self.warm_up * self.num_rounds)
        return self._without_warm_up(round_ - 1) * min(1.0, round_ / (rising + 1))

    def _without_warm_up(self, done: int) -> float:
        match self.name:
            case "constant":
                return 1.0
            case "step":
                return float(self.factor ** (done // self.every))
            case "exponential":
                return float(self.factor ** (done / self.every))
            case "cosine":
                progress = min(1.0, done / max(1, self.num_rounds - 1))
                return self.factor + (1 - self.factor) * (1 + math.cos(math.pi * progress)) / 2
