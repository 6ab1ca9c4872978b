"""What a run tells those who watch it: the terminal, the run directory, the bus."""

from dataclasses import dataclass
from typing import Protocol

from edge_coordinator.planning.fleet import PlanBasis
from runtime.wire.names import ClassNames
from runtime.wire.published import PlanReport, RoundReport


@dataclass(frozen=True)
class Waiting:
    """Nothing can happen until something else has; `what` says what."""

    what: str


@dataclass(frozen=True)
class ClassesAgreed:
    """The devices have these classes, all of them, in this order, and the job named none."""

    classes: ClassNames


@dataclass(frozen=True)
class RoundPlanned:
    """A round begins with this plan."""

    plan: PlanReport
    num_rounds: int
    basis: PlanBasis | None = None
    """What it was priced by, where it rests on measurements."""


@dataclass(frozen=True)
class ClusterStarted:
    """A cluster's turn begins."""

    round: int
    cluster: int
    num_clusters: int
    devices: tuple[str, ...]


@dataclass(frozen=True)
class Evaluating:
    """The joint network is being evaluated."""

    round: int


@dataclass(frozen=True)
class RoundDone:
    """A round is over."""

    report: RoundReport


@dataclass(frozen=True)
class Stopped:
    """The run ends before its last round, because somebody asked for it."""

    by: str
    """Who, as they said themselves; empty if they did not."""

    @property
    def words(self) -> str:
        """Say so."""
        return f"stopped by {self.by}" if self.by else "stopped on request"


Progress = (
    Waiting | ClassesAgreed | RoundPlanned | ClusterStarted | Evaluating | RoundDone | Stopped
)


class Observer(Protocol):
    """Somebody who is told."""

    def tell(self, progress: Progress) -> None:
        """Take note; must return soon."""
        ...
