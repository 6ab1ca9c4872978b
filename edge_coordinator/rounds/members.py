"""Who takes part in a cluster's turn, and how many of them have to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from edge_coordinator.devices.deadlines import Answer
from runtime.wire.commands import Join, Ready


@dataclass(frozen=True)
class Member:
    """A device of a cluster, and how many samples it sends at a time."""

    device: str
    ready: Ready
    batch_size: int
    smashed_shape: tuple[int, ...]
    """Of a sample."""
    predicted_s: Mapping[Answer, float] = field(default_factory=dict)
    """What the plan says of its answers, if it says anything."""
    believed: int | None = None
    """What its |D_k| counts as, where that is not what it says itself."""

    @property
    def num_samples(self) -> int:
        """|D_k|."""
        return self.ready.num_samples if self.believed is None else self.believed


@dataclass(frozen=True)
class Late:
    """Which answer of a device was waited for in vain, and for how long."""

    answer: Answer
    waited_s: float


class Members(Mapping[str, Member]):
    """Who of a cluster is left in its turn, by device id, and why the others are not."""

    def __init__(
        self, members: Sequence[Member], joins: Mapping[str, Join], *, quorum: float
    ) -> None:
        """`joins` is what each is asked to take part in; all of one turn.

        Without `quorum`, a fraction of the members, the turn is lost.
        """
        self._present = {member.device: member for member in members}
        self.joins = joins
        self.num_planned = len(members)
        self._least = least_of(len(members), quorum)
        self.late: dict[str, Late] = {}
        """Device id to what was waited for in vain; they are lost as well."""
        self.lost: dict[str, str] = {}
        """Device id to why it fell out of this turn."""

    def __getitem__(self, device: str) -> Member:
        return self._present[device]

    def __iter__(self) -> Iterator[str]:
        return iter(self._present)

    def __len__(self) -> int:
        return len(self._present)

    @property
    def turn(self) -> Join:
        """One of `joins`, for what is equal for all: numbers, purpose, local epochs, rate."""
        return next(iter(self.joins.values()))

    @property
    def sample_counts(self) -> Mapping[str, int]:
        """|D_k| of each device that is left."""
        return {device: member.num_samples for device, member in self.items()}

    def drop(self, reasons: Mapping[str, str]) -> None:
        """Go on without some devices."""
        for device, reason in reasons.items():
            self.lost[device] = reason
            self._present.pop(device, None)

    @property
    def why_too_few(self) -> str:
        """Why the turn does not count; empty as long as it does."""
        if len(self) >= self._least:
            return ""
        reasons = "; ".join(f"{device} {reason}" for device, reason in self.lost.items())
        return (
            f"{len(self)} of {self.num_planned} devices of the cluster are left, at least "
            f"{self._least} are needed: {reasons}"
        )


def least_of(num_devices: int, quorum: float) -> int:
    """How many of so many devices a quorum is; at least one."""
    return max(1, ceil(quorum * num_devices))
