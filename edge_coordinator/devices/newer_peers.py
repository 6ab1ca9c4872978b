"""What devices of another version say that nobody here knows: counted, told of once, ignored."""

import logging
from collections import Counter

from runtime.errors import UnknownKindError
from runtime.wire.versions import UnknownCommand

MAX_TOLD = 100
"""So many are told of: whoever makes kinds up can make up many."""

log = logging.getLogger(__name__)


class NewerPeers:
    """Counts by sender; none of it counts against the sender."""

    def __init__(self) -> None:
        self.unknown_fields: Counter[str] = Counter()
        self._told: set[tuple[str, str]] = set()

    def note_fields(self, sender: str, num_fields: int, first: str) -> None:
        """Count fields that were ignored."""
        self.unknown_fields[sender] += num_fields
        self._tell(sender, "fields", f"sends fields that are unknown here, and ignored: {first}")

    def note_kind(self, sender: str, error: UnknownKindError) -> None:
        """Tell of a message of an unknown kind."""
        self._tell(sender, error.kind, f"sends what is ignored: {error}")

    def note_refused(self, sender: str, message: UnknownCommand) -> None:
        """Tell of a command that a device does not know."""
        said = f"does not know the command {message.command[:64]!r}: it is older than we are"
        self._tell(sender, f"command {message.command}", said)

    def since(self, before: Counter[str]) -> dict[str, int]:
        """Count by sender the fields that were ignored since `unknown_fields` was copied."""
        return dict(sorted((self.unknown_fields - before).items()))

    def _tell(self, sender: str, what: str, said: str) -> None:
        if (sender, what) not in self._told and len(self._told) < MAX_TOLD:
            self._told.add((sender, what))
            log.warning("%s %s", sender, said)
