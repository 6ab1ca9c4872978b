"""What is known of a link: what a probe found, and what every transfer since has shown.

Rates are kept as seconds per bit, because it is seconds that a plan adds up.
"""

from dataclasses import dataclass, replace

from profiles.running_mean import RunningMean, first_or_next
from profiles.units import BITS_PER_BYTE

MIN_TELLING_BYTES = 16_000
MIN_TELLING_FACTOR = 3.0
"""A transfer tells a rate if it is this large and takes this many times as long as none at all."""
PROBE_COUNT = 3
"""How many transfers a probe's figure counts for."""


@dataclass(frozen=True)
class LinkFigures:
    """What a probe of a link found."""

    up_bps: float
    up_deviation_bps: float
    down_bps: float
    down_deviation_bps: float
    round_trip_s: float
    round_trip_deviation_s: float
    message_s: float
    num_transfers: int


@dataclass(frozen=True)
class LinkEstimate:
    """Running means of one device's link, up and down apart; what is not known yet is None."""

    up_s_per_bit: RunningMean | None = None
    down_s_per_bit: RunningMean | None = None
    acknowledge_s: RunningMean | None = None
    """From a small message until the broker has acknowledged it."""
    beyond_broker_s: float = 0.0
    """What an answer from the coordinator takes longer than the broker's acknowledgement."""
    round_trip_deviation_s: float = 0.0
    message_s: float = 0.0
    num_transfers: int = 0

    def after_probe(self, figures: LinkFigures, *, acknowledge_s: float) -> "LinkEstimate":
        """Begin anew with what a probe found; `acknowledge_s` is the broker's part of it."""
        return LinkEstimate(
            up_s_per_bit=_from_rate(figures.up_bps, figures.up_deviation_bps),
            down_s_per_bit=_from_rate(figures.down_bps, figures.down_deviation_bps),
            acknowledge_s=RunningMean(acknowledge_s),
            beyond_broker_s=max(0.0, figures.round_trip_s - acknowledge_s),
            round_trip_deviation_s=figures.round_trip_deviation_s,
            message_s=figures.message_s,
            num_transfers=self.num_transfers + figures.num_transfers,
        )

    def after_small_message(self, *, acknowledged_after_s: float) -> "LinkEstimate":
        """Take how long the broker took to acknowledge a message of next to no bytes."""
        return replace(self, acknowledge_s=first_or_next(self.acknowledge_s, acknowledged_after_s))

    def after_upload(
        self, *, num_bytes: int, acknowledged_after_s: float, num_messages: int
    ) -> "LinkEstimate":
        """Take an upload, timed until the broker had acknowledged all of it."""
        fixed_s = self.acknowledge_s.mean if self.acknowledge_s else 0.0
        if num_bytes < MIN_TELLING_BYTES or acknowledged_after_s < MIN_TELLING_FACTOR * fixed_s:
            return self
        bits_s = acknowledged_after_s - fixed_s - (num_messages - 1) * self.message_s
        if bits_s <= 0:
            return self
        return replace(
            self,
            up_s_per_bit=first_or_next(self.up_s_per_bit, bits_s / (num_bytes * BITS_PER_BYTE)),
            num_transfers=self.num_transfers + 1,
        )

    def after_download(self, *, num_bytes: int, arrived_within_s: float) -> "LinkEstimate":
        """Take a download: the bytes after its first message, and the seconds they took."""
        fixed_s = self.acknowledge_s.mean if self.acknowledge_s else 0.0
        if num_bytes < MIN_TELLING_BYTES or arrived_within_s < MIN_TELLING_FACTOR * fixed_s:
            return self
        s_per_bit = arrived_within_s / (num_bytes * BITS_PER_BYTE)
        return replace(
            self,
            down_s_per_bit=first_or_next(self.down_s_per_bit, s_per_bit),
            num_transfers=self.num_transfers + 1,
        )

    def figures(self) -> LinkFigures | None:
        """What is known now; None before both directions were measured."""
        if self.up_s_per_bit is None or self.down_s_per_bit is None:
            return None
        acknowledge = self.acknowledge_s or RunningMean(0.0)
        return LinkFigures(
            up_bps=1 / self.up_s_per_bit.mean,
            up_deviation_bps=_rate_deviation(self.up_s_per_bit),
            down_bps=1 / self.down_s_per_bit.mean,
            down_deviation_bps=_rate_deviation(self.down_s_per_bit),
            round_trip_s=acknowledge.mean + self.beyond_broker_s,
            round_trip_deviation_s=max(acknowledge.deviation, self.round_trip_deviation_s),
            message_s=self.message_s,
            num_transfers=self.num_transfers,
        )

    def download_s(self, num_bytes: int) -> float:
        """Seconds that a message of so many bytes takes to come down, as far as is known."""
        figures = self.figures()
        if figures is None:
            return 0.0
        return figures.round_trip_s / 2 + num_bytes * BITS_PER_BYTE / figures.down_bps


def _from_rate(bps: float, deviation_bps: float) -> RunningMean:
    relative = deviation_bps / bps
    return RunningMean(1 / bps, (relative / bps) ** 2, count=PROBE_COUNT)


def _rate_deviation(s_per_bit: RunningMean) -> float:
    return s_per_bit.deviation / s_per_bit.mean**2
