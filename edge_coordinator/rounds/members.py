"""Who takes part in a cluster's turn, and how many of them have to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

from edge_coordinator.devices.deadlines import Answer
from runtime.wire.commands import Ready


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


def least_of(num_devices: int, quorum: float) -> int:
    """How many of so many devices a quorum is; at least one."""
    return max(1, ceil(quorum * num_devices))
