"""What a scenario states of one kind of device: its link, and how its data grow."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from profiles.stated_link import StatedLink


class Growth(BaseModel):
    """From a moment or a round on, a device has so many of its samples."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    from_s: float | None = Field(None, ge=0, description="seconds since the device started")
    from_round: int | None = Field(None, ge=1, description="of simulations alone")
    samples: int | None = Field(None, ge=1, description="that it has from then on, at the most all")
    fraction: float | None = Field(None, gt=0, le=1, description="of its samples, instead")

    @model_validator(mode="after")
    def _is_one_of_each(self) -> Self:
        for one, other in (("from_s", "from_round"), ("samples", "fraction")):
            if (getattr(self, one) is None) == (getattr(self, other) is None):
                raise ValueError(f"it needs either {one} or {other}")
        return self

    @property
    def is_at_start(self) -> bool:
        """Whether it holds from the very beginning."""
        return self.from_s == 0 or self.from_round == 1

    def has_come(self, *, round_: int, elapsed_s: float) -> bool:
        """Whether it holds when this round begins at this moment."""
        if self.from_round is not None:
            return self.from_round <= round_
        return self.from_s is not None and self.from_s <= elapsed_s

    def of(self, num_samples: int) -> int:
        """How many of so many samples."""
        wanted = self.samples if self.fraction is None else round(self.fraction * num_samples)
        return min(max(wanted or 1, 1), num_samples)


class StatedDevice(StatedLink):
    """One kind of device; of its samples it may have only the first for a while."""

    growth: tuple[Growth, ...] = Field((), description="none: it has all from the beginning")
    growth_order: Literal["source", "drawn"] = Field(
        "source", description="in which samples come: the source's, or one that the seed draws"
    )

    @model_validator(mode="after")
    def _states_a_beginning(self) -> Self:
        if self.growth and not any(point.is_at_start for point in self.growth):
            raise ValueError(
                "growth says nothing of the beginning; one of its points has to be from_s = 0 "
                "(or from_round = 1)"
            )
        return self

    def num_there(self, num_samples: int, *, round_: int, elapsed_s: float) -> int:
        """How many of its samples it has; they never become fewer."""
        come = [p for p in self.growth if p.has_come(round_=round_, elapsed_s=elapsed_s)]
        return max((point.of(num_samples) for point in come), default=num_samples)
