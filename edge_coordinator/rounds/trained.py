"""What came of a round's training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge_coordinator.rounds.members import Late


@dataclass(frozen=True)
class TurnTimes:
    """Seconds of one cluster's turn as the coordinator sees them."""

    devices: tuple[str, ...]
    """Those that came to its end."""
    answers_s: Mapping[str, Sequence[float]]
    """From each request to each device's answer: the model, then every gradient."""
    server_s: Sequence[float]
    """Of each local epoch."""
    turn_s: float


@dataclass
class Trained:
    """What a round of training gave."""

    losses: list[float] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    """Whose training counts."""
    lost: dict[str, str] = field(default_factory=dict)
    late: dict[str, Late] = field(default_factory=dict)
    times: list[TurnTimes] = field(default_factory=list)
    caught: dict[str, str] = field(default_factory=dict)
    """Device id to what it sent that would have spoilt the model; it is lost as well."""
    failures: list[str] = field(default_factory=list)
    """Why the server side could not train on what a cluster sent."""
    undone: str = ""
    """Why nothing of the round counts, if so; then the model is as it was before."""
