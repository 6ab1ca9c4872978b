"""What an agent does besides listening: tasks in the background, and messages it drops."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable

from runtime.errors import ProtocolError
from runtime.wire.commands import Assignment, Stop

BackgroundTask = Callable[[], Coroutine[None, None, None]]

log = logging.getLogger(__name__)


class BackgroundTasks:
    """Tasks of one device, in the group of whoever serves it."""

    def __init__(self, tasks: asyncio.TaskGroup, name: str) -> None:
        self._tasks = tasks
        self._name = name
        self._under_way: set[Hashable] = set()
        self._again: set[Hashable] = set()

    def start(self, task: Coroutine[None, None, None]) -> None:
        """Do something now."""
        self._tasks.create_task(task, name=self._name)

    def start_once(self, key: Hashable, task: BackgroundTask) -> None:
        """Do something, unless it is under way."""
        if key not in self._under_way:
            self._under_way.add(key)
            self.start(self._do(key, task))

    def start_again(self, key: Hashable, task: BackgroundTask) -> None:
        """Do something; if it is under way, once more after it, however often that is asked."""
        if key in self._under_way:
            self._again.add(key)
        self.start_once(key, task)

    async def _do(self, key: Hashable, task: BackgroundTask) -> None:
        try:
            await task()
            while key in self._again:
                self._again.discard(key)
                await task()
        finally:
            self._under_way.discard(key)


class DroppedMessages:
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

    def note_foreign(self, message: Assignment | Stop) -> None:
        """Count what whoever gave this device its job cannot have sent."""
        self.counts["foreign command"] += 1
        if self.counts["foreign command"] == 1:
            log.warning(
                "%s drops %s of run %016x, which is not from the coordinator of its own run",
                *(self._device, message.kind, message.run),
            )

    def note_fields(self, num_fields: int, first: str) -> None:
        """Count fields of a newer coordinator, which are ignored."""
        if not self.counts["unknown field"]:
            log.warning("%s ignores fields that are unknown here, as %s", self._device, first)
        self.counts["unknown field"] += num_fields

    def sentence(self) -> str:
        """Say how many were dropped or ignored of each kind; nothing if there were none."""
        counts = ", ".join(f"{number} of {kind}" for kind, number in sorted(self.counts.items()))
        return f"; messages dropped: {counts}" if counts else ""
