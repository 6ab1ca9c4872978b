"""A device's link as a scenario states it: rates, delay, loss, and how they change."""

import math
from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from profiles.recording import Recording
from profiles.units import BITS_PER_BYTE

SEGMENT_BYTES = 1460
"""What one packet of TCP carries."""
LEAST_TIMEOUT_S = 0.2
"""After which TCP sends a packet again that nothing followed; or a round trip, if longer."""
MEAN_SECONDS = 10.0
"""A plan that begins at a moment of a recording counts on the mean of as many seconds."""
LEAST_BPS = 1000.0
"""A plan counts on no less, even of a link that carries nothing for as long."""


class _LinkPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TracePoint(_LinkPart):
    """From this moment on, a link's rates and a device's compute are multiplied.

    What it says of its battery and its heat only agents publish: in a simulation nobody rests.
    """

    from_s: float = Field(ge=0, description="seconds since the device started")
    rate_factor: float = Field(1.0, gt=0, description="times the class's link rates")
    slowdown_factor: float = Field(1.0, ge=0.01, description="times the class's slowdown")
    battery_fraction: float | None = Field(
        None,
        ge=0,
        le=1,
        description="what is left of its battery, on which it runs; none: as it is",
    )
    temperature_c: float | None = Field(
        None, ge=-100, le=200, description="how hot its processor is; none: as it is"
    )


class StatedLink(_LinkPart):
    """The link of one kind of device."""

    up_bps: float = Field(
        gt=0, description="bits per second, device to broker; of a recorded link, its mean"
    )
    down_bps: float = Field(gt=0, description="broker to device")
    delay_s: float = Field(0.0, ge=0, le=10, description="each way")
    jitter_s: float = Field(0.0, ge=0, le=10, description="added to a message's delay at the most")
    loss: float = Field(0.0, ge=0, le=0.3, description="fraction of the packets that are lost")
    trace: tuple[TracePoint, ...] = ()
    period_s: float | None = Field(None, gt=0, description="after this long the trace repeats")
    recorded: str | None = Field(
        None, description="file or folder of recordings: lines of seconds and Mbit/s, up and down"
    )
    offset_s: float = Field(
        0.0, ge=0, description="so much later each further device begins in its recording"
    )
    recordings: tuple[tuple[Recording, Recording], ...] = Field(
        (), description="up and down, read from `recorded`", repr=False
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        times_s = [point.from_s for point in self.trace]
        if times_s != sorted(set(times_s)):
            raise ValueError(f"the trace's from_s have to rise; they are {times_s}")
        if self.period_s is not None and times_s and times_s[-1] >= self.period_s:
            raise ValueError(f"period_s {self.period_s:g} ends before from_s {times_s[-1]:g}")
        return self

    def at(self, elapsed_s: float) -> TracePoint:
        """Which point of the trace is in force."""
        if self.period_s is not None:
            elapsed_s = math.fmod(elapsed_s, self.period_s)
        passed = [point for point in self.trace if point.from_s <= elapsed_s]
        return passed[-1] if passed else TracePoint(from_s=0.0)

    def of_device(self, place: int) -> Self:
        """Take the recording of the device with this number in its class, and its beginning."""
        if not self.recordings:
            return self
        own = self.recordings[place % len(self.recordings)]
        update = {"recordings": (own,), "offset_s": place * self.offset_s}
        return self.model_copy(update=update)

    def carried_until_s(self, num_bits: float, *, start_s: float, upwards: bool) -> float:
        """When a message that sets out at a moment has gone through; lost packets go again."""
        factor = self.at(start_s).rate_factor * (1 - self.loss)
        most_bps = self._most_bps()
        if not self.recordings:
            bps = factor * (self.up_bps if upwards else self.down_bps)
            return start_s + num_bits / min(bps, most_bps)
        recording = self.recordings[0][0 if upwards else 1]
        begins_s = start_s + self.offset_s
        end_s = recording.carried_until_s(num_bits / factor, start_s=begins_s) - self.offset_s
        return max(end_s, start_s + num_bits / most_bps)

    def mean_bps(self, elapsed_s: float) -> tuple[float, float]:
        """Rates up and down that a plan counts on at a moment."""
        factor = self.at(elapsed_s).rate_factor * (1 - self.loss)
        rates = [self.up_bps, self.down_bps]
        if self.recordings:
            begins_s = elapsed_s + self.offset_s
            rates = [each.mean_bps_within(begins_s, MEAN_SECONDS) for each in self.recordings[0]]
        most_bps = self._most_bps()
        up, down = (max(min(factor * bps, most_bps), LEAST_BPS) for bps in rates)
        return up, down

    @property
    def mean_delay_s(self) -> float:
        """Each way, with jitter and with the packets that are sent again after a timeout."""
        return self.delay_s + self.jitter_s / 2 + self.loss * self.timeout_s

    @property
    def timeout_s(self) -> float:
        """What a message waits whose last packet is lost."""
        return max(LEAST_TIMEOUT_S, 2 * self.delay_s)

    def _most_bps(self) -> float:
        """What TCP makes of a link that loses packets, by its round trip (Mathis et al., 1997)."""
        if self.loss == 0 or self.delay_s == 0:
            return math.inf
        segment_bits = SEGMENT_BYTES * BITS_PER_BYTE
        return segment_bits / (2 * self.delay_s) * math.sqrt(1.5 / self.loss)


def class_with_place(counts: Sequence[int], index: int) -> tuple[int, int]:
    """Tell a device's class and its place in that class, the classes being dealt in turn."""
    rounds, rest = divmod(index, sum(counts))
    for number, count in enumerate(counts):
        if rest < count:
            return number, rounds * count + rest
        rest -= count
    raise AssertionError(index)
