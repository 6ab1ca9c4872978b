"""What a device draws from its supply: watts by what it does, stated by class of device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from profiles.phases import Phase, SecondsByPhase

if TYPE_CHECKING:
    from profiles.units import Floats  # A job's settings are read without NumPy.

Seconds = TypeVar("Seconds", float, "Floats")
"""Of one device, or [device]."""


PowerClass = Literal["raspberry-pi-4", "laptop"]


@dataclass(frozen=True)
class Power:
    """Watts of a device that waits, and what computing and transfers add to them."""

    idle_w: float
    compute_w: float
    """More, while one core computes."""
    radio_w: float
    """More, while it sends or receives."""


POWER: Mapping[PowerClass, Power] = {
    "raspberry-pi-4": Power(idle_w=2.7, compute_w=0.9, radio_w=0.7),
    "laptop": Power(idle_w=10.0, compute_w=5.0, radio_w=4.9),
}
"""docs/decisions/energy.md has their sources."""


def class_of_machine(machine: str) -> PowerClass:
    """Take a processor of a PC for a laptop, and any other for a small board."""
    return "laptop" if machine.lower() in {"x86_64", "amd64", "i686"} else "raspberry-pi-4"


def busy_seconds(phase_s: Mapping[Phase, Seconds], *, local_epochs: int) -> tuple[Seconds, Seconds]:
    """Seconds of a round that a device computes, and that its radio is on.

    `phase_s` are those of one local epoch.
    """
    compute_s = local_epochs * (phase_s[Phase.FORWARD] + phase_s[Phase.BACKWARD])
    epoch_s = local_epochs * (phase_s[Phase.UPLOAD] + phase_s[Phase.DOWNLOAD])
    return compute_s, epoch_s + phase_s[Phase.DISTRIBUTE] + phase_s[Phase.MODEL_UPLOAD]


def round_joules(
    power: Power, phase_s: SecondsByPhase, *, local_epochs: int, round_s: float
) -> float:
    """Joules of a device in a round of so many seconds, waiting for other clusters included."""
    compute_s, radio_s = busy_seconds(phase_s, local_epochs=local_epochs)
    return power.idle_w * round_s + power.compute_w * compute_s + power.radio_w * radio_s
