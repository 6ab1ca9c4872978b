"""The section of a job that says what is learnt from, and what is tested on."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from edge_coordinator.job.plan_settings import Section
from runtime.errors import SettingsError
from runtime.offered import KNOWN_SOURCES
from runtime.wire.commands import MAX_FEATURES, Normalisation
from runtime.wire.names import ClassNames, as_class_name, check_names


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


class DataSettings(Section):
    """The samples, of the local devices and of the coordinator's test set."""

    source: str = Field("digits", description=KNOWN_SOURCES)
    partition: str = Field("classes:3", description="iid, classes:K or dirichlet:ALPHA; local mode")
    test: str = Field(
        "source",
        description="test set: source (that of the source, if it has one), devices (they evaluate "
        "on their held-out part), or another source",
    )
    classes: ClassNames = Field(
        (),
        description="names of the classes, in the order of the network's outputs; if left out, "
        "those of the local source, or of the test set, in alphabetical order",
    )
    features: tuple[str, ...] = Field(
        (),
        max_length=MAX_FEATURES,
        description="names of the columns, in the order of the inputs; if left out, those of the "
        "local source, or of the test set",
    )
    normalise: NormaliseSettings = NormaliseSettings()
    held_out: float = Field(
        0.2, ge=0, lt=1, description="fraction each device keeps, where the devices evaluate"
    )
    max_evaluation_samples: int = Field(
        512, ge=1, description="at most so many held-out samples of a device"
    )

    @property
    def test_source(self) -> str:
        """What the test set is read from, unless the devices evaluate."""
        return self.source if self.test == "source" else self.test

    @field_validator("classes")
    @classmethod
    def _spelled_as_labels_are(cls, names: ClassNames) -> ClassNames:
        """Compare like with like: labels have their names spelled so too."""
        try:
            return check_names(tuple(as_class_name(n, where="a name") for n in names))
        except SettingsError as error:
            raise ValueError(str(error)) from error
