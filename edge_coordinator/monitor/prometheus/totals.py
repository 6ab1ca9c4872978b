"""What has happened on a site since it is watched, as counters that only grow."""

from collections import Counter
from dataclasses import dataclass, field

from runtime.wire.published import RoundReport


@dataclass
class SiteTotals:
    """Sums over the rounds that were heard of; a round counts once, however often it is told."""

    num_rounds: int = 0
    round_s: float = 0.0
    up_bytes: int = 0
    down_bytes: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    """Device id to the rounds that it fell out of."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Device id to its messages that were late, repeated or unusable."""
    faults: Counter[str] = field(default_factory=Counter)
    """What went wrong beside the training to how often it did."""
    _last: tuple[int, int] | None = None

    def note(self, report: RoundReport, *, retained: bool) -> None:
        """Add a round; one that was over before anybody watched is only known by then."""
        place = (report.run, report.round)
        if place == self._last:
            return
        self._last = place
        if retained:
            return
        self.num_rounds += 1
        self.round_s += report.round_s
        self.up_bytes += report.up_bytes
        self.down_bytes += report.down_bytes
        self.lost.update(report.lost.keys())
        self.dropped.update(report.dropped)
        self.faults.update(report.faults)
