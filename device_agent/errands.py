"""What an agent does besides listening: tasks, of which a flood of requests starts only a few."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable

Errand = Callable[[], Coroutine[None, None, None]]


class Errands:
    """Tasks of one device, in the group of whoever serves it."""

    def __init__(self, tasks: asyncio.TaskGroup, name: str) -> None:
        self._tasks = tasks
        self._name = name
        self._under_way: set[Hashable] = set()
        self._again: set[Hashable] = set()

    def start(self, errand: Coroutine[None, None, None]) -> None:
        """Do something now."""
        self._tasks.create_task(errand, name=self._name)

    def start_once(self, key: Hashable, errand: Errand) -> None:
        """Do something, unless it is under way."""
        if key not in self._under_way:
            self._under_way.add(key)
            self.start(self._do(key, errand))

    def start_again(self, key: Hashable, errand: Errand) -> None:
        """Do something; if it is under way, once more after it, however often that is asked."""
        if key in self._under_way:
            self._again.add(key)
        self.start_once(key, errand)

    async def _do(self, key: Hashable, errand: Errand) -> None:
        try:
            await errand()
            while key in self._again:
                self._again.discard(key)
                await errand()
        finally:
            self._under_way.discard(key)
