"""Learning rates as functions of the round."""

import math
from typing import Literal

ScheduleName = Literal["constant", "step", "exponential", "cosine"]


def rate_factor(
    name: ScheduleName, *, round_: int, num_rounds: int, every: int, factor: float
) -> float:
    """What the learning rate is multiplied by in a round; rounds count from 1.

    `step` multiplies by `factor` after every `every` rounds, `exponential` does so smoothly, and
    `cosine` falls from 1 in the first round towards `factor` in the last.
    """
    done = round_ - 1
    match name:
        case "constant":
            return 1.0
        case "step":
            return float(factor ** (done // every))
        case "exponential":
            return float(factor ** (done / every))
        case "cosine":
            progress = min(1.0, done / max(1, num_rounds - 1))
            return factor + (1 - factor) * (1 + math.cos(math.pi * progress)) / 2
