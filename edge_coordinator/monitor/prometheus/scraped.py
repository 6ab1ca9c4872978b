"""A site that is scraped: messages go in on the event loop, metrics come out in another thread."""

import threading
import time
from collections.abc import Iterator

from prometheus_client.core import Metric

from edge_coordinator.monitor.prometheus.families import families_of
from edge_coordinator.monitor.prometheus.totals import SiteTotals
from edge_coordinator.monitor.view import SiteView
from runtime.wire.topics import Topics


class ScrapedSite(SiteView):
    """Puts a site's messages together, and gives its metrics to a registry that asks."""

    def __init__(self, topics: Topics) -> None:
        self._totals = SiteTotals()
        self._lock = threading.Lock()
        super().__init__(topics)

    def receive(
        self, topic: str, payload: bytes | memoryview, *, retained: bool, now_s: float
    ) -> None:
        """Take a message; a round that is over is also counted."""
        with self._lock:
            super().receive(topic, payload, retained=retained, now_s=now_s)
            if topic == self._topics.round and self._round is not None:
                self._totals.note(self._round, retained=retained)

    def collect(self) -> Iterator[Metric]:
        """Give the metrics of this moment."""
        with self._lock:
            families = list(families_of(self.state(time.time()), self._totals))
        yield from families
