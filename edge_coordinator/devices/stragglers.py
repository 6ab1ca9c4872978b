"""Who was late again and again: such a device rests for some rounds, and then is tried again."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

NUM_CHANCES = 3
"""Rounds in a row in which a device may be late before it rests."""
LONGEST_REST = 16
"""Rounds; a rest is twice as long as the one before."""


@dataclass(frozen=True)
class Record:
    """How a device has kept its time."""

    num_late: int
    """Rounds in a row, as often as it took part."""
    rest_until: int
    """The try from which on it takes part again."""


class Stragglers:
    """Counts tries of rounds: one that is tried again counts again."""

    def __init__(self, num_tries: int, records: Mapping[str, Record]) -> None:
        self.num_tries = num_tries
        self.records = dict(records)

    def note(self, *, present: Collection[str], late: Collection[str]) -> None:
        """Take in who was late in a try of a round, of those that took part in it."""
        self.num_tries += 1
        for device in present:
            if device not in late:
                self.records.pop(device, None)
                continue
            num_late = 1 + (self.records[device].num_late if device in self.records else 0)
            self.records[device] = Record(num_late, self.num_tries + _rest(num_late))

    def resting(self, devices: Collection[str]) -> dict[str, str]:
        """Say which of these devices rest, and why; nobody, if all would."""
        resting = {
            device: f"was late {record.num_late} times in a row and rests; rounds to go: "
            f"{record.rest_until - self.num_tries}"
            for device, record in sorted(self.records.items())
            if device in devices and record.rest_until > self.num_tries
        }
        return resting if len(resting) < len(devices) else {}


def _rest(num_late: int) -> int:
    return min(2 ** (num_late - NUM_CHANCES), LONGEST_REST) if num_late >= NUM_CHANCES else 0
