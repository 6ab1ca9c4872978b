"""What a real link carried, second by second, as a recording of it says."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Recording(BaseModel):
    """Rates of a link, each from its moment to the next; after the last it begins anew."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    from_s: tuple[float, ...] = Field(min_length=1, description="0 first, rising")
    bps: tuple[float, ...] = Field(min_length=1, description="from each moment on; 0 for none")
    period_s: float = Field(gt=0, description="the last rate holds until then")

    @classmethod
    def of_samples(cls, name: str, samples: Sequence[tuple[float, float]]) -> Self:
        """Take (second, bit/s); the last holds for as long as the one before it."""
        first_s = samples[0][0]
        from_s = tuple(second - first_s for second, _ in samples)
        last_s = max(from_s[-1] - from_s[-2], 0.0) if len(from_s) > 1 else 1.0
        rates = tuple(bps for _, bps in samples)
        return cls(name=name, from_s=from_s, bps=rates, period_s=from_s[-1] + (last_s or 1.0))

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        falls = [b for a, b in pairwise(self.from_s) if b <= a]
        if falls:
            raise ValueError(f"{self.name}: seconds have to rise; {falls[0]:g} does not")
        if min(self.bps) < 0 or max(self.bps) == 0:
            raise ValueError(f"{self.name}: rates have to be 0 or more, and one more than 0")
        return self

    @cached_property
    def _carried_bits(self) -> list[float]:
        """What was carried up to each moment, and at last in a whole period."""
        ends = [*self.from_s, self.period_s]
        parts = (bps * (b - a) for bps, (a, b) in zip(self.bps, pairwise(ends), strict=True))
        return [0.0, *accumulate(parts)]

    @property
    def mean_bps(self) -> float:
        """Over a whole period."""
        return self._carried_bits[-1] / self.period_s

    def carried_until_s(self, num_bits: float, *, start_s: float) -> float:
        """When so many bits have gone through that set out at a moment."""
        sums = self._carried_bits
        periods, bits = divmod(self._bits_before(start_s) + num_bits, sums[-1])
        place = bisect_right(sums, bits, hi=len(sums) - 1) - 1
        place = min(place, len(self.bps) - 1)
        beyond_s = (bits - sums[place]) / self.bps[place] if bits > sums[place] else 0.0
        return max(periods * self.period_s + self.from_s[place] + beyond_s, start_s)

    def mean_bps_within(self, start_s: float, seconds: float) -> float:
        """Over some seconds from a moment on."""
        bits = self._bits_before(start_s + seconds) - self._bits_before(start_s)
        return bits / seconds

    def _bits_before(self, moment_s: float) -> float:
        """What was carried from the beginning to a moment."""
        periods, within_s = divmod(moment_s, self.period_s)
        place = bisect_right(self.from_s, within_s) - 1
        beyond_bits = self.bps[place] * (within_s - self.from_s[place])
        return periods * self._carried_bits[-1] + self._carried_bits[place] + beyond_bits
