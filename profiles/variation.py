"""How devices and links vary around what a scenario states: between devices, and between rounds."""

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from profiles.units import Floats


class Spread(BaseModel):
    """Relative standard deviations; every factor is log-normal with mean 1.

    A device's compute factor multiplies its speed, its rate factor both of its rates, which fade
    together. What differs between devices is drawn once a run, what differs between rounds anew in
    each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    compute_between_devices: float = Field(0.0, ge=0, le=3)
    rate_between_devices: float = Field(0.0, ge=0, le=3)
    compute_between_rounds: float = Field(0.0, ge=0, le=3)
    rate_between_rounds: float = Field(0.0, ge=0, le=3)

    @classmethod
    def between_rounds(cls, deviation: float) -> "Spread":
        """Draw every device's speed and rates anew in each round, with this deviation."""
        return cls(compute_between_rounds=deviation, rate_between_rounds=deviation)


@dataclass(frozen=True)
class Factors:
    """What multiplies the stated figures of each device, [device]."""

    speed: Floats
    rate: Floats

    def __mul__(self, other: "Factors") -> "Factors":
        """Let both act."""
        return Factors(self.speed * other.speed, self.rate * other.rate)


def between_devices(spread: Spread, *, count: int, generator: np.random.Generator) -> Factors:
    """Draw what stays with each device."""
    return _drawn(
        spread.compute_between_devices,
        spread.rate_between_devices,
        count=count,
        generator=generator,
    )


def between_rounds(spread: Spread, *, count: int, generator: np.random.Generator) -> Factors:
    """Draw what one round brings."""
    return _drawn(
        spread.compute_between_rounds, spread.rate_between_rounds, count=count, generator=generator
    )


def _drawn(compute: float, rate: float, *, count: int, generator: np.random.Generator) -> Factors:
    return Factors(
        speed=_log_normal(compute, count=count, generator=generator),
        rate=_log_normal(rate, count=count, generator=generator),
    )


def _log_normal(deviation: float, *, count: int, generator: np.random.Generator) -> Floats:
    """Draw factors of mean 1 and of this standard deviation, [device]."""
    variance = np.log1p(deviation**2)
    normal = generator.standard_normal(count)
    factors: Floats = np.exp(normal * np.sqrt(variance) - variance / 2)
    return factors
