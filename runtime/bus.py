"""What the rest of the program knows of a message bus.

Two buses keep this contract: `runtime.memory` inside one process and `runtime.mqtt` through a
broker. Delivery is at least once: a message may arrive twice, late, or (when a connection
breaks) never; the protocol above is made for that.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self


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
