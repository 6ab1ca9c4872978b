"""What a device's link carries, and how the devices of a cluster meet on it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LinkState:
    """A device's link when it has all of it to itself, up and down measured apart."""

    up_bps: float
    down_bps: float
    round_trip_s: float
    message_s: float
    """Seconds that every message costs whatever its size."""


@dataclass(frozen=True)
class IndependentLinks:
    """Each device is on its own access line: its share is its whole measured rate."""


@dataclass(frozen=True)
class SharedLink:
    """The devices of a cluster divide one link into fractions of any size."""


@dataclass(frozen=True)
class Subcarriers:
    """The devices of a cluster divide one link into whole subcarriers, at least one each."""

    num_subcarriers: int


Medium = IndependentLinks | SharedLink | Subcarriers
"""Shares are fractions of the whole link; `LinkState` holds the rates of the whole link."""
