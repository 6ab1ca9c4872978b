"""What a device's owner lets a coordinator do with it."""

from collections.abc import Callable
from dataclasses import dataclass

from runtime.errors import SettingsError
from runtime.plugins import NO_CODE, AllowedCode

DEFAULT_STEP_FLOP = 1e12
"""A step of a ResNet-50 on 40 samples, or minutes of a small board."""

MAX_LAYER_LETTERS = 64


def is_layer(text: str) -> bool:
    """Whether this may be the name of a layer, or its number from 1."""
    return 0 < len(text) <= MAX_LAYER_LETTERS and text.isprintable() and text.strip("0") != ""


def check_cut(
    who: str, cut: float, *, owners: str, wanted: str, cut_of: Callable[[str], int]
) -> None:
    """Raise SettingsError for a cut before a layer of the owner's, or of settings by topic.

    `who` cuts; `cut_of` finds a layer by its name or number.
    """
    bounds = (
        ("the owner of this device lets", f"--min-cut {owners}", owners),
        ("its settings let", f"min_cut = {wanted}", wanted),
    )
    for whose, setting, layer in bounds:
        least = cut_of(layer) if layer else 0
        if cut < least:
            raise SettingsError(
                f"{who} after {cut:.0f} layers, and {whose} nothing out before {least} ({setting})"
            )


@dataclass(frozen=True)
class Limits:
    """The code that may be named, and the most that a step of training may take."""

    allowed_code: AllowedCode = NO_CODE
    """Beside the built-in networks and losses."""
    memory_bytes: int | None = None
    """Of the graphs of a step; None for what is free when they come."""
    step_flop: float = DEFAULT_STEP_FLOP
    """Of the graphs of a step."""
    min_cut: str = ""
    """The last of the layers that run on this device at least, or their number; nothing that is
    shallower leaves it. Empty: samples themselves may."""
