"""The table of the job file that says how tensors travel."""

from pydantic import Field, ValidationInfo, field_validator

from edge_coordinator.job.plan_settings import Section
from runtime.errors import SettingsError

AUTO = "auto"
_AS_IT_IS = "fp32"


class CodecSettings(Section):
    """How tensors travel: a codec for all that it suits, or one for each kind."""

    name: str = Field(
        _AS_IT_IS,
        description="fp32, fp16, bf16, int8, int4, topk:F, randtopk:F, each also with +zlib; or "
        "auto, by links and max_error",
    )
    model: str | None = Field(None, description="of device-side models on their way down")
    smashed: str | None = Field(None, description="of smashed data")
    gradient: str | None = Field(None, description="of their gradients")
    weights: str | None = Field(None, description="of device-side models on their way up")
    max_error: float = Field(
        0.01, ge=0, le=1, description="auto: the most that a value may come back off, as a "
        "fraction of the range of its channel",
    )  # fmt: skip

    @field_validator("name", "model", "smashed", "gradient", "weights")
    @classmethod
    def _is_offered(cls, name: str | None, told: ValidationInfo) -> str | None:
        try:
            if name not in (None, AUTO):
                _is_sparse(name)
        except SettingsError as error:
            or_auto = "; or auto, and plans choose" if told.field_name == "name" else ""
            raise ValueError(f"{error}{or_auto}") from error
        return name

    @field_validator("model", "smashed", "gradient", "weights")
    @classmethod
    def _is_no_plan(cls, name: str | None) -> str | None:
        if name == AUTO:
            raise ValueError("'auto' is for all kinds together: set codec.name")
        return name

    @field_validator("model", "weights")
    @classmethod
    def _is_dense(cls, name: str | None) -> str | None:
        if name is not None and _is_sparse(name):
            raise ValueError(
                f"models do not travel as {name!r}: what is left out of one would be lost; take "
                "a codec that keeps all values"
            )
        return name

    @property
    def is_planned(self) -> bool:
        """Whether each plan chooses."""
        return self.name == AUTO


def _is_sparse(name: str) -> bool:
    """SettingsError if there is no codec of the name."""
    from runtime.wire.codecs.offered import choice_of  # noqa: PLC0415, NumPy is of weight.

    return choice_of(name).is_sparse
