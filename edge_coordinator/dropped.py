"""Messages that were dropped: counted by device, told of once, and when there are too many."""

import logging
from collections import Counter

from runtime.errors import ProtocolError

STRANGERS = "strangers"
"""Whoever is no device of the site counts as one: names cost nothing."""

log = logging.getLogger(__name__)


class Dropped:
    """Counts what was late, repeated or foreign, and apart from it what can never be right."""

    def __init__(self, *, max_unusable: int) -> None:
        """`max_unusable` messages that can never be right are one too many."""
        self.counts: Counter[str] = Counter()
        self._unusable: Counter[str] = Counter()
        self._max_unusable = max_unusable

    def note(self, sender: str, num_messages: int = 1) -> None:
        """Count messages that came too late, twice, or unasked."""
        if num_messages:
            self.counts[sender] += num_messages

    def complain(self, sender: str, topic: str, error: ProtocolError) -> str:
        """Count a message that can never be right; why its sender is to be excluded, if it is."""
        self.counts[sender] += 1
        self._unusable[sender] += 1
        if self._unusable[sender] == 1:
            log.warning("dropped a message of %s on %s: %s", sender, topic, error)
        if self._unusable[sender] != self._max_unusable:
            return ""
        return f"sent {self._max_unusable} messages that cannot be used; the last: {error}"

    def forgive(self, sender: str) -> None:
        """Begin anew with a device that was started again."""
        self._unusable.pop(sender, None)

    def since(self, before: Counter[str]) -> dict[str, int]:
        """Count by sender what was dropped since `counts` was copied."""
        return dict(sorted((self.counts - before).items()))
