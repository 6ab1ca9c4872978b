"""The devices that the coordinator knows, from their retained status and profile."""

from dataclasses import dataclass, field, replace
from enum import Enum, auto

from runtime.messages import Ready
from runtime.published import DeviceMetrics, DeviceProfile, DeviceStatus


@dataclass(frozen=True)
class DeviceRecord:
    """What is known of one device."""

    status: DeviceStatus
    profile: DeviceProfile | None = None
    ready: Ready | None = None
    """Its answer to this run's assignment, by this session."""
    metrics: DeviceMetrics | None = None
    """What its last turn cost it."""

    @property
    def is_online(self) -> bool:
        """Whether its status says so."""
        return self.status.state == "online"


class Change(Enum):
    """What a status message means."""

    NOTHING = auto()
    ARRIVED = auto()
    RESTARTED = auto()
    """Another session: whatever was in flight to the old one is lost."""
    WENT = auto()


@dataclass
class Registry:
    """All devices of the site, by id."""

    records: dict[str, DeviceRecord] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    """Ids of devices that gave no answer to the assignment, until they show up anew."""
    refusals: dict[str, str] = field(default_factory=dict)
    """Device id to why it cannot take part in this run."""

    @property
    def online(self) -> list[str]:
        """Ids of the devices that are there, in order."""
        return sorted(device for device, record in self.records.items() if record.is_online)

    @property
    def available(self) -> list[str]:
        """Ids of the devices that are there and have not refused the job."""
        return [device for device in self.online if device not in self.refusals]

    @property
    def unassigned(self) -> list[str]:
        """Ids of available devices that have not said they are ready."""
        waiting = [device for device in self.available if self.records[device].ready is None]
        return [device for device in waiting if device not in self.silent]

    @property
    def ready(self) -> dict[str, Ready]:
        """What the devices that can train now have said of themselves, in id order."""
        answers = {device: self.records[device].ready for device in self.available}
        return {device: ready for device, ready in answers.items() if ready is not None}

    def note_status(self, device: str, status: DeviceStatus) -> Change:
        """Take a status; an `offline` of a session that is not the present one is ignored."""
        before = self.records.get(device)
        same_session = before is not None and before.status.session == status.session
        if before is None or (not same_session and status.state == "online"):
            self.records[device] = DeviceRecord(status)
            self.silent.discard(device)
            self.refusals.pop(device, None)
            return Change.ARRIVED if before is None or not before.is_online else Change.RESTARTED
        if not same_session or before.status.state == status.state:
            return Change.NOTHING
        self.records[device] = replace(before, status=status)
        self.silent.discard(device)
        return Change.ARRIVED if status.state == "online" else Change.WENT

    def note_profile(self, device: str, profile: DeviceProfile) -> None:
        """Take a profile of a device whose status is known."""
        if device in self.records:
            self.records[device] = replace(self.records[device], profile=profile)

    def note_metrics(self, device: str, metrics: DeviceMetrics) -> None:
        """Take what a turn cost a device whose status is known."""
        if device in self.records:
            self.records[device] = replace(self.records[device], metrics=metrics)

    def note_ready(self, device: str, ready: Ready) -> None:
        """Take a device's answer to the assignment."""
        self.records[device] = replace(self.records[device], ready=ready)
