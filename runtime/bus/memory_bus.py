"""A message bus inside one process: what tests and one-process runs use instead of a broker.

Everything happens in the order it was called, without a clock, so that a run repeats itself.
Faults are asked for: a connection that is cut, a broker that stops, messages that arrive twice
or in another order than that of different topics.
"""

import asyncio
from collections.abc import AsyncIterator

import numpy as np

from runtime.bus.bus import BusEvent, ClosedAtTheEnd, Connected, Delivery, Disconnected, Inbox, Will
from runtime.bus.topic_filter import matches, require_topic_filter
from runtime.errors import BusError

_MAX_PAYLOAD_BYTES = 268_000_000


class MemoryBroker:
    """The broker of one process: routes, keeps retained messages, publishes wills.

    With `duplicate` every message is delivered twice. With `shuffle` deliveries that wait for
    one client may overtake each other where their topics differ.
    """

    def __init__(
        self, *, duplicate: bool = False, shuffle: np.random.Generator | None = None
    ) -> None:
        self._copies = 2 if duplicate else 1
        self._shuffle = shuffle
        self.retained: dict[str, bytes] = {}
        self.clients: dict[str, MemoryBus] = {}
        self._running = True

    def connect(
        self,
        client_id: str,
        *,
        will: Will | None = None,
        max_payload_bytes: int = _MAX_PAYLOAD_BYTES,
    ) -> "MemoryBus":
        """Connect a client; one that has the same client id is thrown out."""
        inbox = Inbox(shuffle=self._shuffle)
        bus = MemoryBus(self, client_id, inbox, will=will, max_payload_bytes=max_payload_bytes)
        bus.restore()
        return bus

    def stop(self) -> None:
        """Stop as a killed broker does: every connection and retained message is gone, no wills."""
        self._running = False
        self.retained.clear()
        for client in list(self.clients.values()):
            client.drop("the broker stopped")

    def start(self) -> None:
        """Run again after `stop`; clients come back by `MemoryBus.restore`."""
        self._running = True

    def enter(self, client: "MemoryBus") -> None:
        """Take a client's connection."""
        if not self._running:
            raise BusError("cannot reach the broker: it is stopped")
        older = self.clients.get(client.client_id)
        if older is not None:
            older.cut("session taken over")
        self.clients[client.client_id] = client

    def leave(self, client: "MemoryBus") -> None:
        """Forget a client's connection."""
        if self.clients.get(client.client_id) is client:
            del self.clients[client.client_id]

    def route(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Deliver a message to every client that subscribes to its topic."""
        if retain and payload:
            self.retained[topic] = payload
        elif retain:
            self.retained.pop(topic, None)
        for client in list(self.clients.values()):
            if any(matches(wanted, topic) for wanted in client.filters):
                self._deliver(client, topic, payload, retained=False)

    def send_retained(self, client: "MemoryBus", topic_filter: str) -> None:
        """Deliver the retained messages that a new subscription picks."""
        for topic, payload in list(self.retained.items()):
            if matches(topic_filter, topic):
                self._deliver(client, topic, payload, retained=True)

    def _deliver(self, client: "MemoryBus", topic: str, payload: bytes, *, retained: bool) -> None:
        for _ in range(self._copies):
            client.inbox.put(Delivery(topic, memoryview(payload), retained))


class MemoryBus(ClosedAtTheEnd):
    """One client of a `MemoryBroker`; keeps the contract of `runtime.bus.bus.Bus`."""

    def __init__(
        self,
        broker: MemoryBroker,
        client_id: str,
        inbox: Inbox,
        *,
        will: Will | None,
        max_payload_bytes: int,
    ) -> None:
        self.client_id = client_id
        self.filters: dict[str, None] = {}
        self.inbox = inbox
        self._broker = broker
        self._will = will
        self._max_payload_bytes = max_payload_bytes
        self._connected = False
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def max_payload_bytes(self) -> int:
        """The largest payload that the broker accepts."""
        return self._max_payload_bytes

    @property
    def num_waiting(self) -> int:
        """How many events wait for the consumer."""
        return len(self.inbox)

    async def publish(
        self, topic: str, payload: bytes | bytearray | memoryview, *, retain: bool
    ) -> None:
        """Publish; waits while the connection is cut, raises BusError once closed."""
        content = bytes(payload)
        if len(content) > self._max_payload_bytes:
            raise BusError(
                f"{len(content)} bytes on {topic}: "
                f"the broker accepts at most {self._max_payload_bytes}"
            )
        await self._until_connected()
        self._broker.route(topic, content, retain=retain)

    async def subscribe(self, topic_filter: str) -> None:
        """Subscribe, and again on every later connect."""
        require_topic_filter(topic_filter)
        await self._until_connected()
        self.filters[topic_filter] = None
        self._broker.send_retained(self, topic_filter)

    async def unsubscribe(self, topic_filter: str) -> None:
        """Undo `subscribe`."""
        await self._until_connected()
        self.filters.pop(topic_filter, None)

    def events(self) -> AsyncIterator[BusEvent]:
        """Everything that arrives, in order; one consumer."""
        return self.inbox

    def cut(self, reason: str) -> None:
        """Lose the connection, as by a pulled cable: the will is published."""
        if self._connected:
            self.drop(reason)
            if self._will is not None:
                self._broker.route(self._will.topic, self._will.payload, retain=True)

    def drop(self, reason: str) -> None:
        """Lose the connection together with the broker: nobody publishes the will."""
        self._broker.leave(self)
        self._connected = False
        self.inbox.put(Disconnected(reason))

    def restore(self) -> None:
        """Connect (again), with every subscription in force."""
        if self._closed or self._connected:
            return
        self._broker.enter(self)
        self._connected = True
        self.inbox.put(Connected())
        for topic_filter in self.filters:
            self._broker.send_retained(self, topic_filter)
        self._changed.set()

    async def close(self) -> None:
        """Leave without a will; publishers that wait get BusError."""
        self._broker.leave(self)
        self._closed, self._connected = True, False
        self.inbox.end()
        self._changed.set()

    async def _until_connected(self) -> None:
        await asyncio.sleep(0)  # a real bus always lets others run
        while not self._connected:
            if self._closed:
                raise BusError("the bus is closed")
            self._changed.clear()
            await self._changed.wait()
