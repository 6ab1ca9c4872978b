"""Which codecs the turns of a job may use, by its settings and its optimiser."""

from collections.abc import Sequence

from edge_coordinator.job.codec_settings import CodecSettings
from runtime.errors import SettingsError
from runtime.wire.codecs.names import RAW, TurnCodecs
from runtime.wire.codecs.offered import DENSE, LOSSLESS, choice_of
from runtime.wire.commands import OptimizerSpec

_OF_SQUARES = "exp_avg_sq"
"""Steps are divided by the root of this state: a value that becomes 0 would make a huge step."""
_KEEPS_SMALL = ("fp32", "bf16")
"""Codecs that keep the smallest numbers, whatever the largest are."""


def turn_codecs(
    settings: CodecSettings, optimizer: OptimizerSpec, *, carry_state: bool
) -> tuple[TurnCodecs, ...]:
    """All that a turn may use: the one that is given, or those within `max_error`.

    SettingsError if a codec that is given does not suit the state that travels with models.
    """
    squares = carry_state and _OF_SQUARES in optimizer.slots
    if not settings.is_planned:
        return (_of(settings, settings.name, squares=squares),)
    allowed = [each.name for each in DENSE if each.relative_error <= settings.max_error]
    return tuple(_of(settings, name, squares=squares) for name in allowed)


def _of(settings: CodecSettings, name: str, *, squares: bool) -> TurnCodecs:
    codecs = TurnCodecs(
        model=settings.model or _for_models(name, squares=squares, least="int8"),
        smashed=settings.smashed or name,
        gradient=settings.gradient or name,
        weights=settings.weights or _for_models(name, squares=squares, least="int4"),
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


def named_codecs(codecs: Sequence[TurnCodecs]) -> tuple[str, ...] | None:
    """Name all codecs of a run but that of what travels as it is; None if that is all."""
    names = {name for each in codecs for name in each.names} - {RAW}
    return tuple(sorted(names)) or None
