"""The table of the job file that says how tensors travel, and what follows from it."""

from pydantic import Field, field_validator

from edge_coordinator.job.plan_settings import Section
from runtime.errors import SettingsError
from runtime.wire.codecs.offered import DENSE, LOSSLESS, RAW, choice_of
from runtime.wire.codecs.turn import TurnCodecs
from runtime.wire.commands import OptimizerSpec

AUTO = "auto"
_OF_SQUARES = "exp_avg_sq"
"""Steps are divided by the root of this state: a value that becomes 0 would make a huge step."""
_KEEPS_SMALL = ("fp32", "bf16")
"""Codecs that keep the smallest numbers, whatever the largest are."""


class CodecSettings(Section):
    """How tensors travel: a codec for all that it suits, or one for each kind."""

    name: str = Field(
        RAW,
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
    def _is_offered(cls, name: str | None) -> str | None:
        try:
            if name not in (None, AUTO):
                choice_of(name)
        except SettingsError as error:
            raise ValueError(str(error)) from error
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
        if name is not None and choice_of(name).is_sparse:
            raise ValueError(
                f"models do not travel as {name!r}: what is left out of one would be lost; take "
                "a codec that keeps all values"
            )
        return name

    @property
    def is_planned(self) -> bool:
        """Whether each plan chooses."""
        return self.name == AUTO

    def candidates(self, optimizer: OptimizerSpec, *, carry_state: bool) -> tuple[TurnCodecs, ...]:
        """All that a turn may use: the one that is given, or those within `max_error`.

        SettingsError if a codec that is given does not suit the state that travels with models.
        """
        squares = carry_state and _OF_SQUARES in optimizer.slots
        if not self.is_planned:
            return (self._of(self.name, squares=squares),)
        allowed = [each.name for each in DENSE if each.relative_error <= self.max_error]
        return tuple(self._of(name, squares=squares) for name in allowed)

    def _of(self, name: str, *, squares: bool) -> TurnCodecs:
        codecs = TurnCodecs(
            model=self.model or _for_models(name, squares=squares, least="int8"),
            smashed=self.smashed or name,
            gradient=self.gradient or name,
            weights=self.weights or _for_models(name, squares=squares, least="int4"),
        )
        for key, codec in (("model", codecs.model), ("weights", codecs.weights)):
            if squares and choice_of(codec).codec.name not in _KEEPS_SMALL:
                raise SettingsError(
                    f"codec.{key} = {codec!r} loses small numbers, and the state of the devices' "
                    "optimiser that travels with models has them: take "
                    f"{' or '.join(_KEEPS_SMALL)}, or training.carry_optimizer_state = false"
                )
        return codecs


def _for_models(name: str, *, squares: bool, least: str) -> str:
    """Which codec models travel by where `name` is for all: it, or the nearest that suits them."""
    choice = choice_of(name)
    lossless = LOSSLESS if choice.is_deflated else ""
    if choice.is_sparse:
        return RAW + lossless
    if squares and choice.codec.name not in _KEEPS_SMALL:
        return "bf16" + lossless
    if choice.codec.relative_error > choice_of(least).codec.relative_error:
        return least + lossless
    return name
