"""The phases of a round, and seconds by phase."""

from collections.abc import Mapping
from enum import IntEnum


class Phase(IntEnum):
    """The phases of a round in the order in which they happen."""

    DISTRIBUTE = 0
    FORWARD = 1
    UPLOAD = 2
    SERVER = 3
    DOWNLOAD = 4
    BACKWARD = 5
    MODEL_UPLOAD = 6

    @property
    def field(self) -> str:
        """What its seconds are called in messages and tables."""
        return f"{self.name.lower()}_s"


SecondsByPhase = Mapping[Phase, float]
"""Seconds of one device in one local epoch; of the server, those of this device's mini-batch."""

COMPUTE_PHASES = (Phase.FORWARD, Phase.SERVER, Phase.BACKWARD)
