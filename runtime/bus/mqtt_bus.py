"""The message bus through an MQTT broker: one lasting bus out of connections that do not last."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Self

from runtime.bus.broker_url import TlsFiles, make_tls_context, parse_broker_url
from runtime.bus.bus import BusEvent, ClosedAtTheEnd, Connected, Delivery, Disconnected, Inbox, Will
from runtime.bus.mqtt_connection import LinkError, MqttLink, VersionError
from runtime.bus.paho_client import MQTT5, MQTT311, LinkSettings, MqttVersion
from runtime.bus.topic_filter import matches, require_topic_filter
from runtime.errors import BusError, MessageSizeError

_KEEPALIVE_S = 12
_MAX_UNACKNOWLEDGED = 20
_MAX_ATTEMPTS = 4
_INNOCENT_BYTES = 1024  # No broker closes a connection for being sent as little as that,
_AT_ONCE_S = 1.0  # and one that will not have a message does it as soon as it sees its length.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0
_STABLE_S = 10.0

AskVersion = Callable[[], Awaitable[MqttVersion]]


class MqttBus(ClosedAtTheEnd):
    """A client of an MQTT broker that connects again by itself; keeps `runtime.bus.bus.Bus`.

    Made by `MqttBus.connect`. While the connection is down, calls wait; what was sent but not
    acknowledged is sent again. If the broker refuses us for good (its passwords changed, say),
    `events` and all calls raise BusError.
    """

    def __init__(self, settings: LinkSettings) -> None:
        self._settings = settings
        self._version: MqttVersion | None = None
        self._once: Callable[[AskVersion], Awaitable[MqttVersion]] = lambda ask: ask()
        self._inbox = Inbox()
        self._early: list[Delivery] = []
        self._filters: dict[str, None] = {}
        self._slots = asyncio.Semaphore(settings.max_unacknowledged)
        self._link: MqttLink | None = None
        self._failure: BusError | None = None
        self._settled = asyncio.Event()  # set while connected, and for good once failed
        self._max_payload_bytes = 0
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        client_id: str,
        will: Will | None = None,
        wait: bool,
        on_waiting: Callable[[str], None] | None = None,
        tls: TlsFiles | None = None,
        keepalive_s: int = _KEEPALIVE_S,
        max_unacknowledged: int = _MAX_UNACKNOWLEDGED,
        once: Callable[[AskVersion], Awaitable[MqttVersion]] | None = None,
    ) -> Self:
        """Connect to the broker at `url`; one client id must not be used twice at a time.

        Without `wait` a broker that is not there raises BusError at once. With it the call tries
        again and again, and `on_waiting` gets a sentence whenever the reason changes. A broker
        that refuses who we are raises BusError in both cases. `once` asks which MQTT the broker
        speaks for all connections that share it: that takes a connection of its own.
        """
        address = parse_broker_url(url)
        settings = LinkSettings(
            url=address,
            tls=make_tls_context(address, tls or TlsFiles()),
            client_id=client_id,
            will=will,
            keepalive_s=keepalive_s,
            max_unacknowledged=max_unacknowledged,
        )
        bus = cls(settings)
        bus._once = once or bus._once
        link = await (bus._reopen(_pauses_s(), on_waiting) if wait else bus._open_once())
        bus._enter(link)
        bus._task = asyncio.create_task(bus._stay_connected(link), name=f"mqtt {client_id}")
        return bus

    @property
    def max_payload_bytes(self) -> int:
        """The largest payload that the broker is known to accept."""
        return self._max_payload_bytes

    @property
    def is_connected(self) -> bool:
        """Whether a connection stands now."""
        return self._link is not None

    @property
    def mqtt_version(self) -> str:
        """The version of MQTT that the broker agreed to."""
        return "5" if self._version == MQTT5 else "3.1.1"

    @property
    def num_waiting(self) -> int:
        """How many events wait for the consumer."""
        return len(self._inbox)

    async def publish(
        self, topic: str, payload: bytes | bytearray | memoryview, *, retain: bool
    ) -> None:
        """Publish at QoS 1 and return once the broker has acknowledged it."""
        content = bytes(payload) if isinstance(payload, memoryview) else payload
        what = f"{len(content)} bytes on {topic}"
        if len(content) > self._max_payload_bytes:
            raise MessageSizeError(f"{what}: the broker accepts at most {self._max_payload_bytes}")
        clock, num_breaks = asyncio.get_running_loop(), 0
        async with self._slots:
            while num_breaks < _MAX_ATTEMPTS:
                link = await self._connected()
                start_s = clock.time()
                try:
                    reason = await link.publish(topic, content, retain=retain)
                except LinkError:
                    is_at_once = clock.time() - start_s < _AT_ONCE_S
                    num_breaks += is_at_once and len(content) > _INNOCENT_BYTES
                    continue
                except ValueError as error:
                    raise BusError(f"{what}: {error}") from error
                if reason.is_failure:
                    raise BusError(f"{what}: the broker refused it: {str(reason).lower()}")
                return
        raise MessageSizeError(
            f"{what}: the connection broke at once the {_MAX_ATTEMPTS} times that this was sent; "
            "the broker may not accept messages of that size"
        )

    async def subscribe(self, topic_filter: str) -> None:
        """Subscribe, and again on every later connect; returns once the broker has agreed."""
        require_topic_filter(topic_filter)
        self._filters[topic_filter] = None
        while True:
            link = await self._connected()
            try:
                (reason,) = await link.subscribe([topic_filter])
            except LinkError:
                continue
            if reason.is_failure:
                self._filters.pop(topic_filter, None)
                raise BusError(f"the broker refused to subscribe us to {topic_filter}")
            return

    async def unsubscribe(self, topic_filter: str) -> None:
        """Undo `subscribe`."""
        self._filters.pop(topic_filter, None)
        while True:
            link = await self._connected()
            try:
                return await link.unsubscribe(topic_filter)
            except LinkError:
                continue

    def events(self) -> AsyncIterator[BusEvent]:
        """Everything that arrives, in order; one consumer. Ends when the bus is closed."""
        return self._inbox

    async def close(self) -> None:
        """Leave without a will; calls that wait get BusError."""
        if self._failure is None:
            self._failure = BusError("the bus is closed")
        self._inbox.end()
        self._settled.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _connected(self) -> MqttLink:
        """Wait for a connection with every subscription in force."""
        while True:
            if self._failure is not None:
                raise BusError(str(self._failure)) from self._failure
            if self._link is not None and self._link.lost.done():
                self._leave(self._link.lost.result())
            if self._link is not None:
                return self._link
            await self._settled.wait()

    async def _stay_connected(self, link: MqttLink) -> None:
        clock = asyncio.get_running_loop()
        pauses_s = _pauses_s()
        try:
            while True:
                connected_at_s = clock.time()
                reason = await asyncio.shield(link.lost)
                self._leave(reason)
                if clock.time() - connected_at_s > _STABLE_S:
                    pauses_s = _pauses_s()  # else go on growing: somebody may be kicking us out
                await asyncio.sleep(next(pauses_s))
                link = await self._reopen(pauses_s, None)
                self._enter(link)
        except BusError as error:
            self._failure = error
            self._inbox.fail(error)
            self._settled.set()

    def _enter(self, link: MqttLink) -> None:
        self._link = link
        self._max_payload_bytes = link.max_payload_bytes
        self._inbox.put(Connected())
        for delivery in self._early:
            self._inbox.put(delivery)
        self._early.clear()
        self._settled.set()

    def _leave(self, reason: str) -> None:
        """Note that the connection is lost; whoever notices first does it."""
        if self._link is None:
            return
        self._link = None
        self._settled.clear()
        self._inbox.put(Disconnected(reason))

    def _arrive(self, delivery: Delivery) -> None:
        if not any(matches(wanted, delivery.topic) for wanted in self._filters):
            return  # some brokers send retained messages to clients that never asked for them
        if self._link is None:
            self._early.append(delivery)  # retained messages: not before Connected
        else:
            self._inbox.put(delivery)

    async def _open_once(self) -> MqttLink:
        try:
            return await self._open()
        except LinkError as error:
            raise BusError(str(error)) from error

    async def _reopen(
        self, pauses_s: Iterator[float], on_waiting: Callable[[str], None] | None
    ) -> MqttLink:
        """Try until a connection stands; BusError if trying again cannot help."""
        told = ""
        while True:
            try:
                return await self._open()
            except LinkError as error:
                if error.permanent:
                    raise BusError(str(error)) from error
                if on_waiting is not None and str(error) != told:
                    told = str(error)
                    on_waiting(told)
            await asyncio.sleep(next(pauses_s))

    async def _open(self) -> MqttLink:
        version = self._version or await self._once(self._ask_version)
        link = await self._open_as(version)
        self._version = version
        return link

    async def _ask_version(self) -> MqttVersion:
        """Find out whether the broker speaks MQTT 5.

        Asked without a will: a broker that knows MQTT 3.1.1 only may take a CONNECT of MQTT 5
        that has one for an incomplete one, and never answer.
        """
        link = MqttLink(replace(self._settings, will=None), MQTT5, deliver=self._arrive)
        try:
            await link.open()
        except VersionError:
            return MQTT311
        finally:
            await link.close()
        return MQTT5

    async def _open_as(self, version: MqttVersion) -> MqttLink:
        self._early.clear()
        link = MqttLink(self._settings, version, deliver=self._arrive)
        try:
            await link.open()
            filters = list(self._filters)
            reasons = await link.subscribe(filters) if filters else []
        except BaseException:
            link.abort("given up")
            raise
        for topic_filter, reason in zip(filters, reasons, strict=True):
            if reason.is_failure:
                link.abort("given up")
                sentence = f"the broker refused to subscribe us to {topic_filter}"
                raise LinkError(sentence, permanent=False)
        return link


def _pauses_s() -> Iterator[float]:
    """Yield pauses that double, each shortened at random so that many clients spread out."""
    pause_s = _FIRST_PAUSE_S
    while True:
        yield pause_s * random.uniform(0.5, 1.0)  # noqa: S311  no secret
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
