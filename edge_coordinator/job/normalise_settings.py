"""How inputs are brought to one scale on all devices."""

from typing import Literal, Self

from pydantic import Field, model_validator

from edge_coordinator.job.plan_settings import Section
from runtime.wire.normalisation import MAX_FEATURES, Normalisation


class NormaliseSettings(Section):
    """The mean and the deviation of each feature, which inputs lose."""

    by: Literal["none", "data", "given"] = Field(
        "none",
        description="data: of the local source, or else of the test set; given: as they stand here",
    )
    mean: tuple[float, ...] = Field((), max_length=MAX_FEATURES)
    deviation: tuple[float, ...] = Field((), max_length=MAX_FEATURES)
    axis: int = Field(0, ge=0, lt=8, description="of a sample, along which the features lie")

    @model_validator(mode="after")
    def _alike(self) -> Self:
        if self.by == "given" and not (len(self.mean) == len(self.deviation) > 0):
            raise ValueError("given: mean and deviation have one number for each feature")
        if any(each <= 0 for each in self.deviation):
            raise ValueError("a deviation is above 0")
        return self

    def normalisation(self) -> Normalisation | None:
        """Give it as devices are told it; None before it is known, or if there is none."""
        if self.by != "given":
            return None
        return Normalisation(mean=self.mean, deviation=self.deviation, axis=self.axis)
