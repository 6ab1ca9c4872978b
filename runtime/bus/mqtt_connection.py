"""One MQTT connection on the event loop, from its CONNECT to its end.

paho does the protocol; the event loop calls it when its socket can be read or written, and once
a second for the keepalive. No thread runs except while the connection is opened, and where the
loop cannot watch sockets by itself.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

from paho.mqtt import MQTTException
from paho.mqtt import client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from runtime.bus.bus import Delivery
from runtime.bus.paho_client import (
    MQTT5,
    MQTT311,
    LinkSettings,
    MqttVersion,
    failure_words,
    make_client,
    raw_socket,
    reason_words,
    unanswered_words,
)
from runtime.event_loop import Readiness, socket_watcher

_CONNACK_TIMEOUT_S = 10.0
_DISCONNECT_TIMEOUT_S = 1.0
_MAX_PACKET_BYTES = 268_000_000
_HEADER_BYTES = 1024  # more than a PUBLISH packet has besides its payload
_UNSUPPORTED_VERSION = 0x84
_PERMANENT_REFUSALS = {0x85, 0x86, 0x87, 0x8A, 0x8C, 0x90}  # who we are, not how the broker is
_MALFORMED = (MQTTException, struct.error, ValueError, LookupError, TypeError)


class LinkError(Exception):
    """A connection that failed or ended; `permanent` if trying again cannot help."""

    def __init__(self, reason: str, *, permanent: bool) -> None:
        super().__init__(reason)
        self.permanent = permanent


class VersionError(LinkError):
    """The broker may not speak the version of MQTT that was asked for."""


class MqttLink:
    """One connection; it is never opened again, a new one is made instead."""

    def __init__(
        self,
        settings: LinkSettings,
        protocol: MqttVersion,
        *,
        deliver: Callable[[Delivery], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._watcher = socket_watcher()
        self._settings = settings
        self._deliver = deliver
        self._client = make_client(settings, protocol)
        self._protocol = protocol
        self._connack: asyncio.Future[tuple[ReasonCode, object]] = self._loop.create_future()
        self._answers: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self._window = asyncio.Semaphore(settings.max_unacknowledged)
        self._timer: asyncio.TimerHandle | None = None
        self._abandoned = False
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self.max_payload_bytes = _MAX_PACKET_BYTES

    async def open(self) -> None:
        """Connect; returns once the broker has let us in, else raises LinkError."""
        url = self._settings.url
        try:
            await asyncio.to_thread(self._connect)
        except (OSError, ValueError) as error:  # ValueError: a name that is none (IDNA)
            permanent = isinstance(error, ssl.SSLCertVerificationError)
            sentence = f"cannot reach the broker at {url}: {failure_words(error, tls=url.tls)}"
            raise LinkError(sentence, permanent=permanent) from error
        self._attach()
        first: set[asyncio.Future[Any]] = {self._connack, self.lost}
        await asyncio.wait(first, timeout=_CONNACK_TIMEOUT_S, return_when="FIRST_COMPLETED")
        if not self._connack.done() and not self.lost.done():
            sentence = f"what listens at {url} does not answer as an MQTT broker"
            raise LinkError(sentence, permanent=False)
        if not self._connack.done():
            raise VersionError(unanswered_words(self._settings), permanent=False)
        self._read_connack(*self._connack.result())

    async def publish(self, topic: str, payload: bytes | bytearray, *, retain: bool) -> ReasonCode:
        """Publish at QoS 1; returns the acknowledgement, raises LinkError if it is lost before."""
        await self._window.acquire()
        try:
            self._require_alive()
            info = self._client.publish(topic, payload, qos=1, retain=retain)
        except BaseException:
            self._window.release()
            raise
        return (await self._answer(info.rc, info.mid))[0]

    async def subscribe(self, topic_filters: list[str]) -> list[ReasonCode]:
        """Subscribe to all filters in one packet; returns an answer for each."""
        self._require_alive()
        return await self._answer(
            *self._client.subscribe([(wanted, 1) for wanted in topic_filters])
        )

    async def unsubscribe(self, topic_filter: str) -> None:
        """Take back one filter."""
        self._require_alive()
        await self._answer(*self._client.unsubscribe(topic_filter))

    async def close(self) -> None:
        """Say goodbye, so that the broker publishes no will, and end the connection."""
        if self._timer is not None and not self.lost.done():
            self._client.disconnect()
            self._client.loop_write()
            await asyncio.wait({self.lost}, timeout=_DISCONNECT_TIMEOUT_S)
        self.abort("closed")

    def abort(self, reason: str) -> None:
        """End the connection at once, whatever state it is in."""
        self._abandoned = True
        self._client.connect_async(self._settings.url.host, self._settings.url.port)  # only closes
        self._end(reason)

    def _connect(self) -> None:
        """Open the socket and send CONNECT; blocks, so runs in a thread."""
        url, client = self._settings.url, self._client
        if self._protocol == MQTT5:
            client.connect(url.host, url.port, self._settings.keepalive_s, clean_start=True)
        else:
            client.connect(url.host, url.port, self._settings.keepalive_s)
        if self._abandoned:
            client.disconnect()

    def _attach(self) -> None:
        """Let the event loop drive the socket."""
        client, sock = self._client, raw_socket(self._client.socket())
        if sock is None:
            self._end("the connection was reset")
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.on_connect = lambda _c, _u, _flags, reason, properties: _settle(
            self._connack, (reason, properties)
        )
        client.on_disconnect = lambda _c, _u, _flags, reason, _p: self._end(reason_words(reason))
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = lambda _c, _u, mid, reasons, _p: self._on_answer(mid, reasons)
        client.on_unsubscribe = lambda _c, _u, mid, reasons, _p: self._on_answer(mid, reasons)
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = lambda _c, _u, s: self._forget_writer(s)
        self._watcher.watch(sock, Readiness.READ, partial(self._guard, self._read))
        if client.want_write():
            self._watch_for_writing(sock)
        self._timer = self._loop.call_later(1.0, self._tick)

    def _read_connack(self, reason: ReasonCode, properties: object) -> None:
        url = self._settings.url
        if reason.is_failure:
            sentence = f"the broker at {url} refused us: {reason_words(reason)}"
            if reason.value == _UNSUPPORTED_VERSION:
                raise VersionError(sentence, permanent=self._protocol == MQTT311)
            raise LinkError(sentence, permanent=reason.value in _PERMANENT_REFUSALS)
        limit = min(self._settings.max_unacknowledged, getattr(properties, "ReceiveMaximum", 65535))
        self._window = asyncio.Semaphore(limit)
        packet_bytes = getattr(properties, "MaximumPacketSize", _MAX_PACKET_BYTES)
        self.max_payload_bytes = max(min(packet_bytes, _MAX_PACKET_BYTES) - _HEADER_BYTES, 0)

    def _require_alive(self) -> None:
        if self.lost.done():
            raise LinkError(self.lost.result(), permanent=False)

    async def _answer(self, code: MQTTErrorCode, mid: int | None) -> list[ReasonCode]:
        """Wait for the broker's answer to the packet with this id."""
        self._require_alive()
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise LinkError(paho.error_string(code), permanent=False)
        answer: asyncio.Future[list[ReasonCode]] = self._loop.create_future()
        self._answers[mid] = answer
        return await answer

    def _on_answer(self, mid: int, reasons: list[ReasonCode]) -> None:
        answer = self._answers.pop(mid, None)
        if answer is not None:
            _settle(answer, reasons)

    def _on_publish(
        self,
        _client: paho.Client,
        _userdata: object,
        mid: int,
        reason: ReasonCode,
        _properties: object,
    ) -> None:
        self._window.release()  # also for a publish whose caller has gone
        self._on_answer(mid, [reason])

    def _on_message(
        self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage
    ) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return  # not a topic that anyone here subscribes to
        self._deliver(Delivery(topic, memoryview(message.payload).toreadonly(), message.retain))

    def _on_register_write(
        self, _client: paho.Client, _userdata: object, _sock: "paho.SocketLike"
    ) -> None:
        # The socket takes most packets at once: watching it for each would cost more than sending.
        self._loop.call_soon(self._guard, self._write)

    def _on_socket_close(
        self, _client: paho.Client, _userdata: object, sock: "paho.SocketLike"
    ) -> None:
        if (raw := raw_socket(sock)) is not None:
            self._watcher.forget(raw, Readiness.READ)
        self._forget_writer(sock)

    def _watch_for_writing(self, sock: socket.socket) -> None:
        write = partial(self._guard, self._client.loop_write)
        self._watcher.watch(sock, Readiness.WRITE, write)

    def _forget_writer(self, sock: "paho.SocketLike") -> None:
        if (raw := raw_socket(sock)) is not None:
            self._watcher.forget(raw, Readiness.WRITE)

    def _read(self) -> None:
        self._client.loop_read()
        while isinstance(sock := raw_socket(self._client.socket()), ssl.SSLSocket):
            if not sock.pending():
                break
            self._client.loop_read()  # bytes that TLS has already taken off the socket

    def _write(self) -> None:
        """Send what is queued; watch the socket only if it does not take all of it."""
        self._client.loop_write()
        sock = raw_socket(self._client.socket())
        if sock is not None and self._client.want_write():
            self._watch_for_writing(sock)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(1.0, self._tick)
        self._guard(self._client.loop_misc)

    def _guard(self, step: Callable[[], object]) -> None:
        """Run one of paho's steps; what it cannot understand ends the connection."""
        try:
            step()
        except _MALFORMED as error:
            self.abort(f"the broker sent something that is not MQTT: {error}")

    def _end(self, reason: str) -> None:
        """Settle everything that waits for this connection."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        if self._timer is not None:
            self._timer.cancel()
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            if not answer.done():
                answer.set_exception(LinkError(reason, permanent=False))
        self._window.release()  # whoever waits there finds out, and wakes the next


def _settle(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)
