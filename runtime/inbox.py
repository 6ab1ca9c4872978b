"""Events that wait for their one consumer."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from runtime.bus import BusEvent, Delivery
from runtime.errors import BusError

if TYPE_CHECKING:  # A bus needs no arrays, and importing them takes time.
    import numpy as np


class Inbox(AsyncIterator[BusEvent]):
    """An unbounded queue of bus events that its owner can end.

    MQTT cannot slow a sender down, so the queue has no bound; `len` counts what waits in it.
    With `shuffle`, deliveries of different topics may overtake each other, never those of one.
    """

    def __init__(self, *, shuffle: "np.random.Generator | None" = None) -> None:
        self._waiting: deque[BusEvent] = deque()
        self._changed = asyncio.Event()
        self._shuffle = shuffle
        self._ended = False
        self._error: BusError | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, event: BusEvent) -> None:
        """Add an event at the end."""
        self._waiting.append(event)
        self._changed.set()

    def end(self) -> None:
        """End the iteration at once; what still waits is dropped."""
        self._waiting.clear()
        self._ended = True
        self._changed.set()

    def fail(self, error: BusError) -> None:
        """End the iteration with an error, after what still waits."""
        self._ended, self._error = True, error
        self._changed.set()

    async def __anext__(self) -> BusEvent:
        """Return the next event; one consumer only."""
        while not self._waiting:
            if self._error is not None:
                raise BusError(str(self._error)) from self._error
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft() if self._shuffle is None else self._take_any(self._shuffle)

    def _take_any(self, shuffle: "np.random.Generator") -> BusEvent:
        """Take the oldest delivery of a random topic, overtaking deliveries only."""
        heads: dict[str, int] = {}
        for position, event in enumerate(self._waiting):
            if not isinstance(event, Delivery):
                break
            heads.setdefault(event.topic, position)
        position = int(shuffle.choice(list(heads.values()))) if heads else 0
        event = self._waiting[position]
        del self._waiting[position]
        return event
