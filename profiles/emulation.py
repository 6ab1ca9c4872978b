"""Emulated devices: how much slower than this machine each computes, and what its link carries."""

import math
from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from profiles.units import BITS_PER_BYTE

EMULATED = ("uniform", "mixed", "one-straggler", "fading")
"""Scenarios that come with the package."""
MESSAGE_OVERHEAD_BYTES = 60
"""What a message costs beside its payload: TCP/IP and MQTT headers."""


class EmulationError(ValueError):
    """A scenario that cannot be used; says where and what would be right."""


class _EmulationPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TracePoint(_EmulationPart):
    """From this moment on, a link's rates and a device's compute are multiplied."""

    from_s: float = Field(ge=0, description="seconds since the device started")
    rate_factor: float = Field(1.0, gt=0, description="times the class's link rates")
    slowdown_factor: float = Field(1.0, ge=0.01, description="times the class's slowdown")


def check_trace(trace: Sequence[TracePoint], *, period_s: float | None) -> None:
    """ValueError unless the points are in order, and all of them come to pass."""
    times_s = [point.from_s for point in trace]
    if times_s != sorted(set(times_s)):
        raise ValueError(f"the trace's from_s have to rise; they are {times_s}")
    if period_s is not None and times_s and times_s[-1] >= period_s:
        raise ValueError(f"period_s {period_s:g} ends before from_s {times_s[-1]:g}")


def point_at(
    trace: Sequence[TracePoint], elapsed_s: float, *, period_s: float | None
) -> TracePoint:
    """Which point of a trace is in force."""
    if period_s is not None:
        elapsed_s = math.fmod(elapsed_s, period_s)
    passed = [point for point in trace if point.from_s <= elapsed_s]
    return passed[-1] if passed else TracePoint(from_s=0.0)


class DeviceClass(_EmulationPart):
    """One kind of device."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    count: int = Field(1, ge=1, description="how many of these in each round of dealing")
    slowdown: float = Field(1.0, ge=1, description="seconds it computes for each of this machine")
    up_bps: float = Field(gt=0, description="bits per second, device to broker")
    down_bps: float = Field(gt=0, description="bits per second, broker to device")
    delay_s: float = Field(0.0, ge=0, le=10, description="each way")
    trace: tuple[TracePoint, ...] = ()
    period_s: float | None = Field(None, gt=0, description="after this long the trace repeats")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        check_trace(self.trace, period_s=self.period_s)
        return self

    def at(self, elapsed_s: float) -> TracePoint:
        """Which point of the trace is in force."""
        return point_at(self.trace, elapsed_s, period_s=self.period_s)


class EmulationScenario(_EmulationPart):
    """Classes of devices, dealt to the devices of a run in turn."""

    note: str = ""
    devices: tuple[DeviceClass, ...] = Field(min_length=1)

    def class_of(self, index: int) -> DeviceClass:
        """Class of the device with this number, from 0."""
        dealt = [each for each in self.devices for _ in range(each.count)]
        return dealt[index % len(dealt)]


class Line:
    """One direction of a link: messages go through one after another, at a rate."""

    def __init__(self) -> None:
        self._free_at_s = 0.0

    def reserve(self, num_bytes: int, *, now_s: float, bps: float) -> float:
        """When a message that is handed over now has gone through, at this rate."""
        start_s = max(now_s, self._free_at_s)
        self._free_at_s = start_s + (num_bytes + MESSAGE_OVERHEAD_BYTES) * BITS_PER_BYTE / bps
        return self._free_at_s
