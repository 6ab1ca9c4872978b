"""Tells Home Assistant of a site's devices as they come, and takes back who is forgotten."""

from collections.abc import Sequence

from edge_coordinator.formatting import figure_of
from edge_coordinator.monitor.home_assistant.discovery import (
    device_message,
    is_of_site,
    object_id,
    site_message,
)
from runtime.bus.bus import Bus
from runtime.errors import MalformedMessageError
from runtime.wire.published import DeviceStatus, RoundReport
from runtime.wire.topics import HomeAssistantTopics, Topics


class Announcer:
    """Knows what Home Assistant should have been told, and what it has been."""

    def __init__(self, topics: Topics, home: HomeAssistantTopics) -> None:
        self._topics = topics
        self._home = home
        self.connected()

    def topic_filters(self) -> Sequence[str]:
        """Return what to subscribe to."""
        statuses = (self._topics.coordinator_status, self._topics.every_device("status"))
        return [*statuses, self._topics.round, self._home.birth, self._home.every_device]

    def connected(self) -> None:
        """Begin anew: the broker is about to tell all that it has retained."""
        self._is_site = False
        self._metric = "accuracy"
        self._wanted: dict[str, bytes] = {}
        self._told: dict[str, bytes] = {}
        """What Home Assistant was told by us, by topic."""
        self._retained: set[str] = set()
        """Where it was told of this site, by whomever and whenever."""

    def disconnected(self, reason: str) -> None:
        """Do nothing: what is due goes when the broker is back."""

    def receive(
        self,
        topic: str,
        payload: bytes | memoryview,
        *,
        retained: bool,  # noqa: ARG002 - as all who follow a site
        now_s: float,  # noqa: ARG002
    ) -> None:
        """Take a message."""
        if topic == self._home.birth:
            if bytes(payload) == b"online":
                self._told = {}
        elif (own := self._home.parse(topic)) is not None:
            if payload and is_of_site(own, self._topics.site):
                self._retained.add(topic)
        elif topic == self._topics.coordinator_status:
            self._is_site = bool(payload)
            self._want_site()
        elif topic == self._topics.round:
            self._take_round(bytes(payload))
        else:
            self._take_status(topic, bytes(payload))

    async def tell(self, bus: Bus) -> None:
        """Publish what is new, retained; an empty message for what is forgotten."""
        forgotten = self._retained - self._wanted.keys()
        new = {
            topic: message
            for topic, message in self._wanted.items()
            if self._told.get(topic) != message
        }
        self._retained -= forgotten
        self._told |= new
        for topic, message in (dict.fromkeys(sorted(forgotten), b"") | new).items():
            await bus.publish(topic, message, retain=True)

    def _want_site(self) -> None:
        message = site_message(self._topics, metric=self._metric) if self._is_site else None
        self._want(object_id(self._topics.site), message)

    def _take_round(self, payload: bytes) -> None:
        """Call the site's figure by the metric of its run, once that is known."""
        try:
            figure = figure_of(RoundReport.decode(payload)) if payload else None
        except MalformedMessageError:
            return  # Whoever watches says so.
        if figure is not None and figure[0] != self._metric:
            self._metric = figure[0]
            self._want_site()

    def _take_status(self, topic: str, payload: bytes) -> None:
        parsed = self._topics.parse(topic)
        if parsed is None:
            return
        try:
            status = DeviceStatus.decode(payload) if payload else None
        except MalformedMessageError:
            return  # Whoever watches says so.
        message = device_message(self._topics, parsed.device, status) if status else None
        self._want(object_id(self._topics.site, parsed.device), message)

    def _want(self, own: str, message: bytes | None) -> None:
        topic = self._home.device(own)
        if message is not None:
            self._wanted[topic] = message
        else:
            self._wanted.pop(topic, None)
            self._told.pop(topic, None)
