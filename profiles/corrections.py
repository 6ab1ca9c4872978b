"""Arrays of seconds, one a phase, and what measurements taught about each of them."""

from dataclasses import dataclass

import numpy as np

from profiles.phases import COMPUTE_PHASES, Phase, SecondsByPhase
from profiles.units import Floats

LEAST_MODELLED_S = 1e-100
"""A phase that takes less by the model takes nothing: no factor makes seconds of that."""
LEAST_SCALE, MOST_SCALE = 1e-12, 1e12
MOST_ADDED_S = 1e6
"""Beyond these a correction is the accident of one measurement, and products would overflow."""


def by_phase(seconds: Floats) -> SecondsByPhase:
    """Take seconds, [phase], by their phases."""
    return {phase: float(seconds[phase]) for phase in Phase}


def phase_array(seconds: SecondsByPhase) -> Floats:
    """Give seconds as an array, [phase]."""
    return np.array([seconds[phase] for phase in Phase])


@dataclass(frozen=True)
class Corrections:
    """What one device's measurements add to its model: seconds = scale * modelled + added_s.

    Both arrays are [phase]. `added_s` belongs to one occurrence of a phase, and a phase that
    does not happen at a cut stays at zero. A scale is positive and nothing added is negative: so
    no phase takes less than no time, whatever the model makes of it later.
    """

    scale: Floats
    added_s: Floats

    @classmethod
    def none(cls) -> "Corrections":
        """Take the model at its word."""
        return cls(scale=np.ones(len(Phase)), added_s=np.zeros(len(Phase)))

    @classmethod
    def bounded(cls, *, scale: Floats, added_s: Floats) -> "Corrections":
        """Bring any numbers within the bounds; what is not a number says nothing."""
        return cls(
            scale=np.clip(np.where(np.isnan(scale), 1.0, scale), LEAST_SCALE, MOST_SCALE),
            added_s=np.clip(np.where(np.isnan(added_s), 0.0, added_s), 0.0, MOST_ADDED_S),
        )

    def modelled(self, predicted_s: Floats) -> Floats:
        """Seconds of the model alone, out of a prediction that has these corrections, [phase]."""
        modelled_s: Floats = np.maximum(predicted_s - self.added_s, 0.0) / self.scale
        return modelled_s

    def corrected(self, modelled_s: Floats) -> Floats:
        """Correct the model's seconds, [phase]."""
        corrected_s: Floats = self.scale * modelled_s + (modelled_s > 0) * self.added_s
        return corrected_s

    def learn(self, *, predicted_s: Floats, measured_s: Floats) -> "Corrections":
        """Corrections that would have predicted what was measured, [phase]; NaN: not measured.

        Computing phases learn a factor, because it survives a change of cut; link phases learn
        seconds, because their rates are measured anyway and what remains is a cost per transfer.
        A transfer that took less than the model has it was carried faster: that is a factor too.
        """
        modelled_s = self.modelled(predicted_s)
        known = np.isfinite(measured_s) & (modelled_s > LEAST_MODELLED_S)
        ratio = np.where(known, measured_s, 1.0) / np.where(known, modelled_s, 1.0)
        adds = known & (ratio > 1) & ~np.isin(np.arange(len(Phase)), COMPUTE_PHASES)
        error_s = np.where(adds, measured_s - modelled_s, 0.0)
        return Corrections.bounded(
            scale=np.where(known, np.where(adds, 1.0, ratio), self.scale),
            added_s=np.where(known, error_s, self.added_s),
        )
