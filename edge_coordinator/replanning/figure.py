"""What was measured of a device, as one watches whether it changes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured figure and how far repetitions differ."""

    value: float
    deviation: float
