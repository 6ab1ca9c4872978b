"""What a site's topics say, put together: messages go in, the state of the site comes out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from edge_coordinator.formatting import duration, figure_of
from edge_coordinator.monitor.activity import activities
from edge_coordinator.monitor.state import (
    LEAVES,
    Activity,
    DeviceView,
    Presence,
    SiteState,
    WatchedDevice,
)
from runtime.errors import MalformedMessageError
from runtime.wire.fields import as_words
from runtime.wire.history import HistoryReport
from runtime.wire.measures import PhaseSeconds
from runtime.wire.published import CoordinatorStatus, PlanReport, RoundReport
from runtime.wire.topics import Topics

STALE_AFTER_S = 180.0
"""A device publishes its profile at least every minute; three missed ones are no accident."""


@dataclass(frozen=True)
class _Place:
    """Where the plan has a device; nowhere, if all is None."""

    cluster: int | None = None
    share: float | None = None


class SiteView:
    """Puts a site's messages together; whatever is wrong with one is counted, not raised."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._num_malformed = 0
        self._last_malformed = ""
        self.connected()

    def topic_filters(self) -> Sequence[str]:
        """Return what to subscribe to."""
        topics = self._topics
        devices = [topics.every_device(leaf) for leaf in LEAVES]
        return [topics.coordinator_status, topics.plan, topics.round, topics.history, *devices]

    def connected(self) -> None:
        """Begin anew: the broker is about to tell all that it has retained."""
        self._lost = ""
        self._devices: dict[str, WatchedDevice] = {}
        self._coordinator: CoordinatorStatus | None = None
        self._plan: PlanReport | None = None
        self._plan_is_fresh = False
        self._round: RoundReport | None = None
        self._evaluated: RoundReport | None = None
        self._history: HistoryReport | None = None

    def disconnected(self, reason: str) -> None:
        """Note that nothing is heard any more."""
        self._lost = as_words(reason) or "no reason given"

    def receive(
        self, topic: str, payload: bytes | memoryview, *, retained: bool, now_s: float
    ) -> None:
        """Take a message; an empty one takes back what was retained on its topic."""
        try:
            self._take(topic, bytes(payload), retained=retained, now_s=now_s)
        except MalformedMessageError as error:
            self._num_malformed += 1
            self._last_malformed = as_words(f"{topic}: {error}")

    def state(self, now_s: float) -> SiteState:
        """Give the site as it is now."""
        places = _places(self._plan)
        positions = activities(
            plan=self._plan_at_work,
            round_=self._round,
            metrics={device: known.metrics for device, known in self._devices.items()},
            absent={device for device, known in self._devices.items() if known.is_offline},
            plan_is_fresh=self._plan_is_fresh,
        )
        devices = tuple(
            self._view(device, places, positions.get(device, Activity.IDLE), now_s)
            for device in sorted(self._devices)
        )
        return SiteState(
            site=self._topics.site,
            at_unix_s=now_s,
            connection_lost=self._lost,
            coordinator=self._coordinator,
            devices=devices,
            plan=self._plan,
            round=self._round,
            evaluated=self._evaluated,
            history=self._history,
            num_malformed=self._num_malformed,
            last_malformed=self._last_malformed,
        )

    # What arrives

    def _take(self, topic: str, payload: bytes, *, retained: bool, now_s: float) -> None:
        if topic == self._topics.coordinator_status:
            self._coordinator = CoordinatorStatus.decode(payload) if payload else None
        elif topic == self._topics.plan:
            self._plan = PlanReport.decode(payload) if payload else None
            self._plan_is_fresh = not retained
        elif topic == self._topics.round:
            self._take_round(RoundReport.decode(payload) if payload else None)
        elif topic == self._topics.history:
            self._history = HistoryReport.decode(payload) if payload else None
        elif (parsed := self._topics.parse(topic)) is not None:
            known = self._devices.get(parsed.device) or WatchedDevice(parsed.device)
            known.take(parsed.leaf, payload, retained=retained, now_s=now_s)
            self._devices[parsed.device] = known
            if known.is_empty:
                del self._devices[parsed.device]
        else:
            raise MalformedMessageError("not a topic of a device")

    def _take_round(self, report: RoundReport | None) -> None:
        self._round = report
        if report is None or (self._evaluated is not None and report.run != self._evaluated.run):
            self._evaluated = None
        if report is not None and (report.test_loss is not None or figure_of(report)):
            self._evaluated = report

    # What follows from it

    @property
    def _plan_at_work(self) -> PlanReport | None:
        """The plan that the coordinator works by, if it works."""
        if self._plan is None or self._coordinator is None:
            return None
        works = self._coordinator.state == "online" and self._coordinator.run == self._plan.run
        return self._plan if works else None

    def _view(
        self, device: str, places: Mapping[str, _Place], activity: Activity, now_s: float
    ) -> DeviceView:
        known = self._devices[device]
        place = places.get(device, _Place())
        presence, why = self._presence(known, now_s, is_planned=device in places)
        return DeviceView(
            device=device,
            presence=presence,
            why=why,
            status=known.status,
            profile=known.profile,
            ages=known.ages(now_s),
            cluster=place.cluster,
            share=place.share,
            activity=Activity.IDLE if presence is Presence.OFFLINE else activity,
            metrics=known.metrics,
            predicted=self._plan.predicted.get(device) if self._plan is not None else None,
            measured=self._measured(known),
            tags=known.tags,
            wanted=known.wanted,
        )

    def _measured(self, known: WatchedDevice) -> PhaseSeconds | None:
        """Give the last round's seconds, or else what the device said when its turn was over."""
        told = known.metrics.phases if known.metrics is not None else None
        return self._round.measured.get(known.device, told) if self._round is not None else told

    def _presence(
        self, known: WatchedDevice, now_s: float, *, is_planned: bool
    ) -> tuple[Presence, str]:
        if known.is_offline:
            return Presence.OFFLINE, ""
        if known.status is None:
            return Presence.STALE, "it has no status"
        lost, is_back = self._lost_in_round(known.device, is_planned=is_planned)
        if lost and not is_back:
            return Presence.STALE, lost
        age_s = known.ages(now_s).facts_s
        if age_s is not None and age_s > STALE_AFTER_S:
            return Presence.STALE, f"no new profile for {duration(age_s)}"
        if known.has_no_clock:
            return Presence.ONLINE, "its clock is not set, so its figures have no age yet"
        left_out = self._plan.left_out.get(known.device, "") if self._plan is not None else ""
        return Presence.ONLINE, as_words(f"left out: {left_out}") if left_out else lost

    def _lost_in_round(self, device: str, *, is_planned: bool) -> tuple[str, bool]:
        """Say why the last round lost a device, if it did; and whether a later plan has it."""
        report, plan, coordinator = self._round, self._plan, self._coordinator
        is_old = report is not None and coordinator is not None and coordinator.run != report.run
        if report is None or is_old or device not in report.lost:
            return "", False
        is_later = plan is not None and (plan.run != report.run or plan.round > report.round)
        reason = as_words(f"lost in round {report.round}: {report.lost[device]}")
        return reason, is_later and is_planned


def _places(plan: PlanReport | None) -> dict[str, _Place]:
    """Tell where the plan has each device; a share may be missing."""
    return {
        device: _Place(index, share)
        for index, cluster in enumerate(plan.clusters if plan is not None else ())
        for device, share in zip_longest(cluster.devices, cluster.shares[: len(cluster.devices)])
    }
