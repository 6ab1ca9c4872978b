"""What the rest of the program knows of a message bus.

Two buses keep this contract: `runtime.bus.memory_bus` inside one process and `runtime.bus.mqtt_bus`
through a broker. Delivery is at least once: a message may arrive twice, late, or (when a connection
breaks) never; the protocol above is made for that.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from runtime.errors import BusError

if TYPE_CHECKING:  # A bus needs no arrays, and importing them takes time.
    import numpy as np


@dataclass(frozen=True)
class Will:
    """A retained message that the broker publishes when this client's connection is lost."""

    topic: str
    payload: bytes


@dataclass(frozen=True)
class Delivery:
    """One message as it arrived; `payload` may be a view of the receive buffer: copy to keep."""

    topic: str
    payload: memoryview
    retained: bool


@dataclass(frozen=True)
class Connected:
    """The connection stands (for the first time or again) and every subscription is in force."""


@dataclass(frozen=True)
class Disconnected:
    """The connection was lost; the bus is trying again by itself."""

    reason: str


BusEvent = Delivery | Connected | Disconnected


class Bus(Protocol):
    """A connection to the bus, used from one event loop."""

    @property
    def max_payload_bytes(self) -> int:
        """The largest payload that the broker is known to accept."""
        ...

    async def publish(
        self, topic: str, payload: bytes | bytearray | memoryview, *, retain: bool
    ) -> None:
        """Publish at QoS 1 and return once the broker has acknowledged it.

        Waits while at most a bounded number of messages is unacknowledged. While the connection
        is down it waits for it. Raises BusError when the bus is closed, or refuses the message.
        """
        ...

    async def subscribe(self, topic_filter: str) -> None:
        """Subscribe, and again on every later connect; returns once the broker has agreed."""
        ...

    async def unsubscribe(self, topic_filter: str) -> None:
        """Undo `subscribe`."""
        ...

    def events(self) -> AsyncIterator[BusEvent]:
        """Everything that arrives, in order; one consumer. Ends when the bus is closed."""
        ...


class ClosedAtTheEnd(ABC):
    """What is closed at the end of its block."""

    @abstractmethod
    async def close(self) -> None:
        """Leave; again does nothing."""

    async def __aenter__(self) -> Self:
        """Return what was opened."""
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()


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
