"""A site at one moment as those who watch it see it, and each device of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from runtime.errors import MalformedMessageError
from runtime.wire.history import HistoryReport
from runtime.wire.measures import ComputeProfile, LinkProfile, PhaseSeconds
from runtime.wire.published import (
    CoordinatorStatus,
    DeviceMetrics,
    DeviceProfile,
    DeviceStatus,
    PlanReport,
    RoundReport,
)
from runtime.wire.run_control import DeviceTags, WantedSettings

LEAVES = ("status", "profile", "metrics", "tags", "settings")
"""What a device publishes of itself, or people of it, below its own topic."""

_CLOCK_TOLERANCE_S = 60.0
_EARLIEST_UNIX_S = 1_577_836_800.0  # 2020: before this program was written


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
    tags: Mapping[str, str] = field(default_factory=dict)
    """What people call it by."""
    wanted: WantedSettings | None = None
    """How people want its agent to work; its profile says what it made of that."""

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
    """The last round of this run, as far as it was seen, that has a metric or a test loss."""
    history: HistoryReport | None = field(compare=False)
    """The rounds of the run so far; it says what `round` said before."""
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


@dataclass
class WatchedDevice:
    """The last of each message of one device."""

    device: str
    status: DeviceStatus | None = None
    profile: DeviceProfile | None = None
    metrics: DeviceMetrics | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    wanted: WantedSettings | None = None
    clock_ahead_s: float = 0.0
    """How far its clock is ahead of ours, if by more than a message may be on its way."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it is known (any more)."""
        said = (self.status, self.profile, self.metrics, self.wanted)
        return said == (None,) * len(said) and not self.tags

    @property
    def is_offline(self) -> bool:
        """Whether it, or its last will, says so."""
        return self.status is not None and self.status.state == "offline"

    @property
    def has_no_clock(self) -> bool:
        """Whether its clock cannot be right, and what was heard does not say how far it is off."""
        profile = self.profile
        is_early = profile is not None and profile.measured_at_unix_s < _EARLIEST_UNIX_S
        return is_early and not self.clock_ahead_s

    def take(self, leaf: str, payload: bytes, *, retained: bool, now_s: float) -> None:
        """Take a message; an empty one takes back what was retained."""
        match leaf:
            case "status":
                self._take_status(DeviceStatus.decode(payload) if payload else None)
            case "profile":
                profile = DeviceProfile.decode(payload) if payload else None
                self._take_profile(profile, retained=retained, now_s=now_s)
            case "metrics":
                self.metrics = DeviceMetrics.decode(payload)
            case "tags":
                self.tags = DeviceTags.decode(payload).tags if payload else {}
            case "settings":
                self.wanted = WantedSettings.decode(payload) if payload else None

    def ages(self, now_s: float) -> Ages:
        """Tell how old its figures are, by its own clock where that is far from ours."""
        profile = self.profile
        if profile is None or self.has_no_clock:
            return Ages()
        its_now_s = now_s + self.clock_ahead_s
        return Ages(
            facts_s=max(0.0, its_now_s - profile.measured_at_unix_s),
            compute_s=_age_s(profile.compute, its_now_s),
            link_s=_age_s(profile.link, its_now_s),
        )

    def _take_status(self, status: DeviceStatus | None) -> None:
        """Take a status; the last will of an earlier session says nothing about this one."""
        before = self.status
        if status is not None and before is not None and status.session != before.session:
            self.status = before if status.state == "offline" else status
        else:
            self.status = status

    def _take_profile(self, profile: DeviceProfile | None, *, retained: bool, now_s: float) -> None:
        if profile is not None and profile.device != self.device:
            raise MalformedMessageError(f"it is the profile of {profile.device}")
        self.profile = profile
        if profile is not None and not retained:
            ahead_s = profile.measured_at_unix_s - now_s
            self.clock_ahead_s = ahead_s if abs(ahead_s) > _CLOCK_TOLERANCE_S else 0.0


def _age_s(measured: ComputeProfile | LinkProfile | None, now_s: float) -> float | None:
    return None if measured is None else max(0.0, now_s - measured.measured_at_unix_s)
