"""What is counted and measured of layers, links and phases, as it is part of messages."""

from typing import Self

from pydantic import Field

from profiles.phases import Phase, SecondsByPhase
from runtime.wire.fields import (
    MAX_BPS,
    BitsPerSecond,
    Count,
    FlopPerSecond,
    Message,
    Positive,
    Seconds,
    Token,
)


class LayerWork(Message):
    """What one layer has to compute for a sample, as the coordinator counts it."""

    name: Token
    forward_flop: float = Field(ge=0)
    backward_flop: float = Field(ge=0)


class LayerTiming(Message):
    """One layer of a job's network on one device."""

    name: Token
    forward_s: Seconds = Field(description="seconds per sample")
    backward_s: Seconds = Field(description="seconds per sample")


MAX_REASON_LETTERS = 500


class ComputeProfile(Message):
    """How fast a device computes, measured on it, by the engine that trains."""

    network: Token = Field(description="whose layers these are; empty: a generic one")
    batch_size: Positive = Field(description="samples in the mini-batch it was measured with")
    layers: tuple[LayerTiming, ...] = Field((), max_length=5_000)
    forward_flop_per_s: FlopPerSecond = Field(description="effective, over all layers")
    backward_flop_per_s: FlopPerSecond = Field(description="effective, over all layers")
    relative_deviation: float = Field(
        ge=0, le=1e6, description="of the seconds, between repetitions"
    )
    measured_at_unix_s: float
    deepest_cut: Count | None = Field(
        None, description="layers that could be measured; null: all that this device may be given"
    )
    why_no_deeper: str = Field("", max_length=MAX_REASON_LETTERS)


class LinkProfile(Message):
    """What a device's link carries, measured through the broker."""

    up_bps: BitsPerSecond = Field(description="bits per second, device to coordinator")
    up_deviation_bps: float = Field(ge=0, le=MAX_BPS)
    down_bps: BitsPerSecond = Field(description="bits per second, coordinator to device")
    down_deviation_bps: float = Field(ge=0, le=MAX_BPS)
    round_trip_s: Seconds = Field(description="of an empty message and its answer")
    round_trip_deviation_s: Seconds
    message_s: Seconds = Field(description="seconds that each message costs at any size")
    num_transfers: Count = Field(description="transfers that these figures rest on")
    measured_at_unix_s: float


class PhaseSeconds(Message):
    """Seconds of one device in one local epoch, phase by phase."""

    distribute_s: float = Field(ge=0)
    forward_s: float = Field(ge=0)
    upload_s: float = Field(ge=0, description="smashed data and labels")
    server_s: float = Field(ge=0, description="of the server, for this device's mini-batch")
    download_s: float = Field(ge=0, description="gradients")
    backward_s: float = Field(ge=0, description="and the update")
    model_upload_s: float = Field(ge=0)

    @classmethod
    def of(cls, seconds: SecondsByPhase) -> Self:
        """Write down the seconds of every phase."""
        return cls.model_validate({phase.field: seconds[phase] for phase in Phase})

    @property
    def by_phase(self) -> SecondsByPhase:
        """Seconds by their phases."""
        return {phase: getattr(self, phase.field) for phase in Phase}
