"""A site at one moment, as those who watch it see it."""

from dataclasses import dataclass, field
from enum import StrEnum

from runtime.wire.published import (
    CoordinatorStatus,
    DeviceMetrics,
    DeviceProfile,
    DeviceStatus,
    PhaseSeconds,
    PlanReport,
    RoundReport,
)


class Presence(StrEnum):
    """Whether a device is there."""

    ONLINE = "online"
    STALE = "stale"
    """It says that it is there, but something says otherwise."""
    OFFLINE = "offline"


class Activity(StrEnum):
    """Where a device is in the present round."""

    IDLE = "idle"
    """No round goes on, or the plan has no place for it."""
    WAITS = "waits"
    """Its cluster's turn has not come."""
    TRAINS = "trains"
    DONE = "done"
    UNKNOWN = "?"
    """The round had begun before anybody watched."""


@dataclass(frozen=True)
class Ages:
    """Seconds since a device's figures were measured; None for what was not."""

    facts_s: float | None = None
    """Memory and the other facts of the machine; they come with every profile."""
    compute_s: float | None = None
    link_s: float | None = None


@dataclass(frozen=True)
class DeviceView:
    """One device."""

    device: str
    presence: Presence
    why: str
    """Why it is stale, or left out; empty if there is nothing to say."""
    status: DeviceStatus | None
    profile: DeviceProfile | None
    ages: Ages = field(compare=False)
    cluster: int | None
    share: float | None
    """Of its cluster's link, a fraction."""
    activity: Activity
    metrics: DeviceMetrics | None
    """What its last turn cost it, by its own account."""
    predicted: PhaseSeconds | None
    measured: PhaseSeconds | None

    @property
    def engine(self) -> str:
        """What computes there; empty if nobody said."""
        if self.status is not None and self.status.engine:
            return self.status.engine
        return self.profile.engine if self.profile is not None else ""


@dataclass(frozen=True)
class SiteState:
    """All of a site; two are equal if nothing happened between them but time."""

    site: str
    at_unix_s: float = field(compare=False)
    connection_lost: str
    """Why the broker is out of reach and all of this is old; empty while it is not."""
    coordinator: CoordinatorStatus | None
    devices: tuple[DeviceView, ...]
    plan: PlanReport | None
    round: RoundReport | None
    evaluated: RoundReport | None
    """The last round of this run, as far as it was seen, that has a test accuracy or loss."""
    num_malformed: int
    last_malformed: str

    @property
    def is_empty(self) -> bool:
        """Whether nobody has left anything on the site."""
        return not (self.devices or self.coordinator or self.plan or self.round)

    @property
    def run(self) -> int | None:
        """The run that the coordinator works at or worked at last."""
        if self.coordinator is not None:
            return self.coordinator.run
        return self.plan.run if self.plan is not None else None

    def count(self, presence: Presence) -> int:
        """How many devices are in this state."""
        return sum(view.presence is presence for view in self.devices)
