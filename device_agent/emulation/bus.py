"""The link of an emulated device: what it carries arrives later. Nobody else is told."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import numpy as np

from profiles.emulation import DeviceClass, Line
from runtime.bus.bus import Bus, BusEvent, ClosedAtTheEnd, Delivery
from runtime.errors import BusError

Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]


class ClosableBus(Bus, Protocol):
    """A bus as a program holds it."""

    async def close(self) -> None:
        """Leave without a will."""
        ...


class EmulatedBus(ClosedAtTheEnd):
    """A bus behind a link of a device's class; keeps the contract of `runtime.bus.bus.Bus`.

    Payloads go through one after another at the link's rate and arrive its delay later, in the
    order in which they were sent. Every device has a link of its own. Closes the bus it wraps.
    """

    def __init__(
        self,
        inner: ClosableBus,
        device_class: DeviceClass,
        *,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        generator: np.random.Generator | None = None,
    ) -> None:
        self._inner = inner
        self._class = device_class
        self._clock, self._sleep = clock, sleep
        self._start_s = clock()
        self._up, self._down = (Line(device_class, upwards=upwards) for upwards in (True, False))
        self._generator = generator or np.random.default_rng()
        self._turn_to_send = asyncio.Lock()
        self._events = _Arrivals(self._until)
        self._pump = asyncio.create_task(self._receive(), name="emulated link")

    @property
    def max_payload_bytes(self) -> int:
        """The largest payload that the broker is known to accept."""
        return self._inner.max_payload_bytes

    async def publish(
        self, topic: str, payload: bytes | bytearray | memoryview, *, retain: bool
    ) -> None:
        """Publish once the link has carried it; the acknowledgement comes a delay later."""
        if len(payload) <= self.max_payload_bytes:  # Else it is refused at once.
            through_s = self._up.reserve(len(topic) + len(payload), now_s=self._elapsed_s())
            due_s = self._start_s + through_s + self._delay_s()
            async with self._turn_to_send:  # It is fair, so the order stays.
                await self._until(due_s)
        await self._inner.publish(topic, payload, retain=retain)
        await self._sleep(self._delay_s())

    async def subscribe(self, topic_filter: str) -> None:
        """Subscribe, and again on every later connect; returns once the broker has agreed."""
        await self._sleep(2 * self._class.delay_s)
        await self._inner.subscribe(topic_filter)

    async def unsubscribe(self, topic_filter: str) -> None:
        """Undo `subscribe`."""
        await self._inner.unsubscribe(topic_filter)

    def events(self) -> AsyncIterator[BusEvent]:
        """Everything that arrives, in order, once the link has carried it."""
        return self._events

    async def close(self) -> None:
        """Leave without a will; calls that wait get BusError."""
        await self._inner.close()
        self._events.drop()
        self._pump.cancel()
        await asyncio.wait({self._pump})

    async def _receive(self) -> None:
        """Note when each event arrived at the link, however late it is taken from us."""
        try:
            async for event in self._inner.events():
                self._events.put(event, self._arrival_s(event))
            self._events.end(None)
        except BusError as error:
            self._events.end(error)

    def _arrival_s(self, event: BusEvent) -> float:
        if not isinstance(event, Delivery):
            return self._clock()
        num_bytes = len(event.topic) + len(event.payload)
        through_s = self._down.reserve(num_bytes, now_s=self._elapsed_s())
        return self._start_s + through_s + self._delay_s()

    def _elapsed_s(self) -> float:
        return self._clock() - self._start_s

    def _delay_s(self) -> float:
        """Draw the delay of one message; of packets that are lost, the last one costs a timeout."""
        link = self._class
        jitter, lost = self._generator.random(2)
        timeout_s = link.timeout_s if lost < link.loss else 0.0
        return link.delay_s + float(jitter) * link.jitter_s + timeout_s

    async def _until(self, due_s: float) -> None:
        wait_s = due_s - self._clock()
        if wait_s > 0:
            await self._sleep(wait_s)


class _Arrivals(AsyncIterator[BusEvent]):
    """Events that are on the link, each with the moment when it comes out."""

    def __init__(self, until: Sleep) -> None:
        self._until = until
        self._waiting: deque[tuple[float, BusEvent]] = deque()
        self._changed = asyncio.Event()
        self._ended = False
        self._error: BusError | None = None

    def put(self, event: BusEvent, due_s: float) -> None:
        """Add an event that comes out at `due_s`, and not before those that wait."""
        self._waiting.append((due_s, event))
        self._changed.set()

    def end(self, error: BusError | None) -> None:
        """End after what still waits."""
        self._ended, self._error = True, error
        self._changed.set()

    def drop(self) -> None:
        """End now."""
        self._waiting.clear()
        self._ended = True
        self._changed.set()

    async def __anext__(self) -> BusEvent:
        while True:
            if self._waiting:
                head = self._waiting[0]
                await self._until(head[0])  # If we are cancelled here, it stays.
                if self._waiting and self._waiting[0] is head:
                    return self._waiting.popleft()[1]
            elif self._error is not None:
                raise BusError(str(self._error)) from self._error
            elif self._ended:
                raise StopAsyncIteration
            else:
                self._changed.clear()
                await self._changed.wait()
