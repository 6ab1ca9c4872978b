"""Messages to a device that can never be right: counted by kind, each kind told of once."""

import logging
from collections import Counter

from runtime.errors import ProtocolError

log = logging.getLogger(__name__)


class Complaints:
    """Counts by the kind of message: the last level of its topic."""

    def __init__(self, device: str) -> None:
        self.counts: Counter[str] = Counter()
        self._device = device

    def note(self, topic: str, error: ProtocolError) -> None:
        """Count a message that was dropped."""
        kind = topic.rsplit("/", 1)[-1]
        self.counts[kind] += 1
        if self.counts[kind] == 1:
            log.warning("%s drops a message on %s: %s", self._device, topic, error)

    def sentence(self) -> str:
        """Say how many were dropped of each kind; nothing if there were none."""
        counts = ", ".join(f"{number} of {kind}" for kind, number in sorted(self.counts.items()))
        return f"; messages dropped: {counts}" if counts else ""
