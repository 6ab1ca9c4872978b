"""Who was caught sending what would spoil the model: excluded by id, for a stated time.

An id is excluded whatever session it has: to be started again does not help. The first time it is
out for `devices.excluded_rounds`, and twice as long each time it is caught again, up to
`LONGEST` times that.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

LONGEST = 16


@dataclass(frozen=True)
class Suspension:
    """How often a device was caught, and until when it is out."""

    num_times: int
    until: int
    """The last round without it."""
    reason: str


class Suspensions:
    """Counts rounds by their numbers: one that is tried again is the same."""

    def __init__(self, num_rounds: int, records: Mapping[str, Suspension]) -> None:
        """`num_rounds` is for how long the first time; `records` is what was known before."""
        self._num_rounds = num_rounds
        self.records = dict(records)

    def note(self, round_: int, caught: Mapping[str, str]) -> None:
        """Take in who was caught in a round, and at what."""
        for device, reason in caught.items():
            before = self.records[device].num_times if device in self.records else 0
            rounds = self._num_rounds * min(2**before, LONGEST)
            self.records[device] = Suspension(before + 1, round_ + rounds, reason)

    def out(self, round_: int, devices: Collection[str]) -> dict[str, str]:
        """Say which of these devices are out in a round, and why."""
        return {
            device: f"{record.reason}; excluded up to round {record.until}"
            for device, record in sorted(self.records.items())
            if device in devices and record.until >= round_
        }
