"""What a device's owner lets a coordinator do with it."""

from dataclasses import dataclass

from runtime.plugins import NO_CODE, AllowedCode

DEFAULT_STEP_FLOP = 1e12
"""A step of a ResNet-50 on 40 samples, or minutes of a small board."""


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
