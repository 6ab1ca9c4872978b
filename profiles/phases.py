"""The phases of a round, and what measurements taught about each of them."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from profiles.units import Floats


class Phase(IntEnum):
    """The phases of a round in the order in which they happen."""

    DISTRIBUTE = 0
    FORWARD = 1
    UPLOAD = 2
    SERVER = 3
    DOWNLOAD = 4
    BACKWARD = 5
    MODEL_UPLOAD = 6


COMPUTE_PHASES = (Phase.FORWARD, Phase.SERVER, Phase.BACKWARD)


@dataclass(frozen=True)
class Corrections:
    """What one device's measurements add to its model: seconds = scale * modelled + added_s.

    Both arrays are [phase]. `added_s` belongs to one occurrence of a phase, and a phase that
    does not happen at a cut stays at zero.
    """

    scale: Floats
    added_s: Floats

    @classmethod
    def none(cls) -> "Corrections":
        """Take the model at its word."""
        return cls(scale=np.ones(len(Phase)), added_s=np.zeros(len(Phase)))

    def learn(self, *, predicted_s: Floats, measured_s: Floats, weight: float) -> "Corrections":
        """Move towards what was measured, [phase]; NaN means not measured.

        Computing phases learn a factor, because it survives a change of cut; link phases learn
        seconds, because their rates are measured anyway and what remains is a cost per transfer.
        """
        known = np.isfinite(measured_s) & (predicted_s > 0)
        computes = np.isin(np.arange(len(Phase)), COMPUTE_PHASES)
        ratio = np.where(known, measured_s, 1.0) / np.where(known, predicted_s, 1.0)
        error_s = np.where(known, measured_s - predicted_s, 0.0)
        return Corrections(
            scale=np.where(known & computes, self.scale * ratio**weight, self.scale),
            added_s=np.where(known & ~computes, self.added_s + weight * error_s, self.added_s),
        )
