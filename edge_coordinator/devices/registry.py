"""The devices that the coordinator knows, and whether they can be part of this job."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from edge_coordinator.devices.fitness import why_unfit
from edge_coordinator.job.labels import LabelForm
from runtime.wire.commands import Assignment, LinkMeasured, Ready
from runtime.wire.names import FeatureNames
from runtime.wire.published import DeviceMetrics, DeviceProfile, DeviceStatus
from runtime.wire.versions import Feature, why_incompatible, why_without

MAX_DEVICES = 20_000
"""More are not taken note of: twice as many as a job can have."""


@dataclass(frozen=True)
class DeviceRecord:
    """What is known of one device."""

    status: DeviceStatus
    profile: DeviceProfile | None = None
    ready: Ready | None = None
    """Its answer to this run's assignment, by this session."""
    metrics: DeviceMetrics | None = None
    """What its last turn cost it."""
    link_failure: LinkMeasured | None = None
    """How a measurement of its link failed; None if none did."""
    former: "DeviceRecord | None" = None
    """Of the session before, in case it is that one's device after all."""

    @property
    def is_online(self) -> bool:
        """Whether its status says so."""
        return self.status.state == "online"


class Change(Enum):
    """What a status message means."""

    NOTHING = auto()
    ARRIVED = auto()
    """A new session: whatever was in flight to an older one is lost."""
    RETURNED = auto()
    """The same session as before: its connection had broken."""
    WENT = auto()


@dataclass
class Registry:
    """All devices of the site, by id.

    A round asks for them all a few times, and a message asks of its own sender: `is_…` look at
    one device, or a site of a thousand would be sorted a thousand times a round.
    """

    assignment: Assignment | None = None
    """What devices were asked to be ready for; None before anybody was asked."""
    labels: LabelForm | None = None
    """What the job says of its labels, if it can."""
    numbered: bool = False
    """Whether the labels of the job's test set are numbers."""
    gathers: bool = False
    """Whether names of classes are put together that are not those of all devices."""
    features: FeatureNames | None = None
    """Of the job's test set, if they have names."""
    needs: Sequence[Feature] = ()
    """What the job has that older devices do not know."""
    records: dict[str, DeviceRecord] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    """Ids of devices that gave no answer to the assignment, until they show up anew."""
    refusals: dict[str, str] = field(default_factory=dict)
    """Device id to why it cannot take part in this run, in its own words."""
    times_refused: dict[str, int] = field(default_factory=dict)
    """How often devices have refused the job, or their work has failed, since they came."""
    excluded: dict[str, str] = field(default_factory=dict)
    """Device id to why it may not, until it is started again."""
    tags: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Device id to what people call it by."""
    busy: Container[str] = ()
    """Ids of devices that are at something else, and can train later."""

    @property
    def online(self) -> list[str]:
        """Ids of the devices that are there, in order."""
        return sorted(device for device, record in self.records.items() if record.is_online)

    @property
    def available(self) -> list[str]:
        """Ids of the devices that are there, have not refused the job, and may take part."""
        barred = self.barred
        return [device for device in self.online if device not in barred]

    @property
    def barred(self) -> dict[str, str]:
        """Device id to why it takes no part, whoever decided it."""
        return self.refusals | self.excluded

    @property
    def unassigned(self) -> list[str]:
        """Ids of available devices that have not said they are ready."""
        return [device for device in self.unready if device not in self.silent]

    @property
    def unready(self) -> list[str]:
        """Ids of available devices that have not said they are ready, silent ones included."""
        return [device for device in self.available if self.records[device].ready is None]

    @property
    def assigned(self) -> dict[str, Ready]:
        """What the devices that have the job have said of themselves, in id order."""
        answers = {device: self.records[device].ready for device in self.available}
        return {device: ready for device, ready in answers.items() if ready is not None}

    @property
    def ready(self) -> dict[str, Ready]:
        """What the devices that can train now have said of themselves, in id order."""
        return {d: ready for d, ready in self.assigned.items() if d not in self.busy}

    def measured_up_bps(self, device: str) -> float | None:
        """Bits per second that a device says its link was measured at; None if it was not."""
        profile = self.records[device].profile if device in self.records else None
        return profile.link.up_bps if profile and profile.link else None

    def is_unready(self, device: str) -> bool:
        """Whether this device is available and has not said it is ready."""
        return self._is_available(device) and self.records[device].ready is None

    def is_assigned(self, device: str) -> bool:
        """Whether this device is available and has the job."""
        return self._is_available(device) and self.records[device].ready is not None

    def is_ready(self, device: str) -> bool:
        """Whether this device can train now."""
        return self.is_assigned(device) and device not in self.busy

    def _is_available(self, device: str) -> bool:
        record = self.records.get(device)
        is_barred = device in self.refusals or device in self.excluded
        return record is not None and record.is_online and not is_barred

    def note_status(self, device: str, status: DeviceStatus) -> Change:
        """Take a status; an `offline` of a session that is not the present one is ignored."""
        before = self.records.get(device)
        same_session = before is not None and before.status.session == status.session
        if before is None and len(self.records) >= MAX_DEVICES:
            return Change.NOTHING  # Names cost nothing to whoever makes them up.
        if before is None or (not same_session and status.state == "online"):
            self.records[device] = _new_record(status, before)
            self.silent.discard(device)
            self.refusals.pop(device, None)
            self.times_refused.pop(device, None)
            self.excluded.pop(device, None)
            refused = why_incompatible(status.version, here="this coordinator")
            for feature in self.needs:
                refused = refused or why_without(status.version, feature)
            if refused:
                self.refusals[device] = refused
            return Change.ARRIVED
        if not same_session or before.status.state == status.state:
            return Change.NOTHING
        self.records[device] = replace(before, status=status)
        self.silent.discard(device)
        return Change.RETURNED if status.state == "online" else Change.WENT

    def note_tags(self, device: str, tags: Mapping[str, str]) -> None:
        """Take what people call a device by, whether it is there or not."""
        if device in self.tags or len(self.tags) < MAX_DEVICES:
            self.tags[device] = tags

    def note_profile(self, device: str, profile: DeviceProfile) -> None:
        """Take a profile of a device whose status is known."""
        if device in self.records:
            self.records[device] = replace(self.records[device], profile=profile)

    def take_growth(self) -> dict[str, int]:
        """Take over how many samples devices train on by now, of those whose data grow.

        Between rounds: what a round began with holds to its end.
        """
        grown = {}
        for device, ready in self.ready.items():
            if ready.grows:
                record = self.records[device]
                told = record.profile.training_samples if record.profile else None
                grown[device] = count = max(told or 0, ready.num_samples)
                now = ready.model_copy(update={"num_samples": count})
                self.records[device] = replace(record, ready=now)
        return grown

    def note_link(self, device: str, measured: LinkMeasured) -> None:
        """Take what came of a measurement of the link of a device whose status is known."""
        if device in self.records:
            failure = None if measured.link else measured
            self.records[device] = replace(self.records[device], link_failure=failure)

    def note_metrics(self, device: str, metrics: DeviceMetrics) -> None:
        """Take what a turn cost a device whose status is known."""
        if device in self.records:
            self.records[device] = replace(self.records[device], metrics=metrics)

    def agree(self, assignment: Assignment) -> None:
        """Ask for this from now on; who counts along other classes is not ready any more."""
        self.assignment, self.gathers = assignment, False
        for device, record in self.records.items():
            if record.ready and record.ready.class_names != assignment.classes:
                self.records[device] = replace(record, ready=None)

    def note_unassigned(self, device: str) -> None:
        """Take note that a device has lost its assignment: it is given again."""
        if device in self.records:
            self.records[device] = replace(self.records[device], ready=None)

    def note_refusal(self, device: str, reason: str) -> None:
        """Take note that a device says that it cannot do the job."""
        self.refusals[device] = reason
        self.times_refused[device] = self.times_refused.get(device, 0) + 1

    def reconsider(self, device: str) -> None:
        """Have a device asked anew that refused: it may be able to now, or others forged it."""
        self.refusals.pop(device, None)
        self.note_unassigned(device)

    def note_ready(self, device: str, ready: Ready) -> str:
        """Take a device's answer to the assignment; why it is barred, if the job has no use for it.

        Those that were let in before are alike, whether they are there now or not.
        """
        others = (record.ready for record in self.records.values() if record.ready is not None)
        asked = self.assignment
        unfit = (
            why_unfit(
                *(ready, asked, others),
                labels=self.labels,
                numbered=self.numbered,
                gathers=self.gathers,
                features=self.features,
            )
            if asked
            else ""
        )
        if asked and asked.classes and ready.class_names:
            return ""  # It answers what was asked before the classes were agreed on.
        if unfit:
            self.refusals[device] = unfit
        else:
            self.records[device] = replace(self.records[device], ready=ready)
        return unfit


def _new_record(status: DeviceStatus, before: DeviceRecord | None) -> DeviceRecord:
    """Begin anew with a session; go on where it was, if it was there before another was claimed."""
    if before is None:
        return DeviceRecord(status)
    former = before.former
    if former is not None and former.status.session == status.session:
        return replace(former, status=status)
    return DeviceRecord(status, former=replace(before, former=None))
