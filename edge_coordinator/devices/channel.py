"""Everything the coordinator says to its devices and hears from them, for one run."""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

from edge_coordinator.devices.deadlines import Allowance, Answer, AnswerTimes, Question
from edge_coordinator.devices.inbound import DropCounts, Inbound
from edge_coordinator.devices.link_measurement import LinkEcho
from edge_coordinator.devices.outstanding import Outstanding
from edge_coordinator.devices.requests import (
    AskAgainFunction,
    DeviceGoneError,
    Exchange,
    Inquiry,
    LateError,
    Reply,
    Request,
    is_answer,
    is_at_it,
    lacks_graphs,
)
from edge_coordinator.devices.timers import AnswerTimers
from edge_coordinator.job.settings import DeviceSettings
from runtime.bus.bus import Bus, BusEvent, Connected, Delivery, Disconnected
from runtime.errors import EdgeError
from runtime.protocol.events import DeviceLost
from runtime.protocol.gathering import Gathering
from runtime.wire.commands import Assignment, Join, LinkMeasured, MeasureLink, Ready, Refused, Stop
from runtime.wire.frames import Frame, FrameKind, StepId, Tensor
from runtime.wire.topics import Topics
from runtime.wire.transfer import leaf_of, send_frame

MAX_GRAPHS_SENT = 3
"""How often graphs are sent for one request, to a device that says it lacks them still."""

MAX_TURNS = 0xFFFF
"""Of a round, however often it is tried; the number beyond is that of an evaluation."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tolerance:
    """What is put up with from devices."""

    patience_s: float
    """For an answer that a device has never given before."""
    margin_s: float
    """At least, beyond what was expected of an answer."""
    max_unusable: int
    """Messages that can never be right, after which a device is excluded."""

    @classmethod
    def of(cls, settings: DeviceSettings) -> "Tolerance":
        """Take it from a job."""
        return cls(settings.patience_s, settings.margin_s, settings.max_unusable)


class DeviceChannel:
    """Requests out and answers in; one exchange of frames at a time."""

    def __init__(
        self,
        bus: Bus,
        topics: Topics,
        *,
        run: int,
        tolerance: Tolerance,
        chunk_bytes: int,
        on_other: Callable[[Delivery], None],
        on_connected: Callable[[], None],
    ) -> None:
        """`on_other` takes what no device sent; `on_connected` hears of a new connection."""
        self.run = run
        self.down_bytes = 0
        self.dropped = DropCounts(max_unusable=tolerance.max_unusable)
        self.answer_times = AnswerTimes(
            patience_s=tolerance.patience_s, least_margin_s=tolerance.margin_s
        )
        self.graphs: dict[str, tuple[Tensor, ...]] = {}
        """Graphs that were offered, by digest, as a frame carries them."""
        self._bus = bus
        self._topics = topics
        self._patience_s = tolerance.patience_s
        self._chunk_bytes = chunk_bytes
        self._on_connected = on_connected
        self._turns: dict[int, itertools.count[int]] = {}
        self._joined: dict[str, str] = {}
        """Device id to the session that took part in a turn last."""
        self._outstanding = Outstanding()
        self.inbound = Inbound(topics, self._outstanding, self.dropped, run=run, on_other=on_other)
        self.registry = self.inbound.registry
        self.changed = self.inbound.changed
        """Set whenever a device has come or gone, or is ready."""
        self.learnt = self.inbound.learnt
        """Set whenever something is known of a device that was not: presence, profile, metrics."""

    @property
    def up_bytes(self) -> int:
        """Bytes of frames that came from devices."""
        return self.inbound.up_bytes

    async def open(self) -> None:
        """Listen to the devices of the site."""
        for leaf in ("status", "profile", "metrics", "up/#"):
            await self._bus.subscribe(self._topics.every_device(leaf))

    async def listen(self, events: AsyncIterator[BusEvent]) -> None:
        """Take in whatever the bus brings, until it is closed."""
        async for event in events:
            match event:
                case Delivery():
                    self.inbound.receive(event)
                case Disconnected(reason):
                    log.warning("lost the broker (%s); trying again", reason)
                    self._outstanding.pause()
                    self.inbound.pause()
                case Connected():
                    log.warning("connected to the broker again")
                    self._on_connected()
                    self._outstanding.resume()
                    self.inbound.resume()

    # Requests

    async def assign(self, device: str, assignment: Assignment) -> None:
        """Give a device the job and note its answer; DeviceGoneError if it takes no part."""
        self.registry.assignment = assignment
        session = self._session(device)
        reply = await self._request(Inquiry(device, assignment, self._patient()))
        if not isinstance(reply, Ready) or self._session(device) != session:
            return
        if unfit := self.registry.note_ready(device, reply):
            raise DeviceGoneError(unfit)

    async def join(self, device: str, join: Join) -> None:
        """Have a device take part in a cluster's turn; DeviceGoneError if it does not."""
        if not self.registry.is_ready(device) and device not in self.inbound.grace:
            raise DeviceGoneError("is not there any more")
        question = Question(Answer.JOINED, {})
        allowance = self.answer_times.allow(question, [device])[device]
        inquiry = Inquiry(device, join, allowance)
        start_s = time.monotonic()
        try:
            await self._request(inquiry)
        except LateError as error:
            self.answer_times.learn(question, seconds={}, waited_s={device: error.waited_s})
            raise
        self._joined[device] = self._session(device)
        if inquiry.timers.is_undisturbed(device):
            seconds = time.monotonic() - start_s
            self.answer_times.learn(question, seconds={device: seconds}, waited_s={})

    async def measure(self, device: str, join: Join) -> None:
        """Have a device time its compute, which may take long; DeviceGoneError if it does not."""
        await self._request(Inquiry(device, join, self._patient()))

    def next_turn(self, round_: int) -> int:
        """Number the turns of a round: one that is tried again is another turn."""
        if round_ not in self._turns:
            self._turns = {round_: itertools.count()}
        number = next(self._turns[round_])
        if number >= MAX_TURNS:
            raise EdgeError(f"round {round_} was tried again and again: {MAX_TURNS} turns in vain")
        return number

    async def measure_link(self, device: str, request: MeasureLink) -> LinkMeasured:
        """Have a device measure its link, with us as the echo.

        DeviceGoneError if it does not answer. The figures are in its profile too.
        """
        echo = LinkEcho(
            self._bus, self._topics, device=device, request=request, chunk_bytes=self._chunk_bytes
        )
        self._outstanding.echoes[device] = echo
        serving = asyncio.create_task(echo.serve(), name=f"echo {device}")
        try:
            reply = await self._request(Inquiry(device, request, self._patient()))
        finally:
            del self._outstanding.echoes[device]
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        assert isinstance(reply, LinkMeasured)
        return reply

    async def stop(self, device: str) -> None:
        """Tell a device that the run is over."""
        await self._command(device, Stop(run=self.run))

    async def publish_model(self, cluster: int, frame: Frame) -> None:
        """Distribute a device-side model to all who listen to a cluster's topic."""
        await self._send(self._topics.cluster_model(cluster), frame)

    async def send(self, device: str, frame: Frame) -> None:
        """Send a frame to one device."""
        await self._send(self._topics.down(device, leaf_of(frame.kind)), frame)

    def exchange(
        self, gathering: Gathering, ask_again: AskAgainFunction, question: Question
    ) -> Exchange:
        """Expect answers from now on; those to the exchange before are stale."""
        now_s = time.monotonic()
        timers = AnswerTimers(self.answer_times.allow(question, gathering.missing), now_s=now_s)
        exchange = Exchange(gathering, ask_again, timers=timers, asked_at_s=now_s)
        self._outstanding.exchange = exchange
        for device in gathering.missing:
            if not self.registry.is_ready(device) and device not in self.inbound.grace:
                exchange.post(DeviceLost(device, "is not there any more"))
            elif self._joined.get(device) != self._session(device):
                exchange.post(DeviceLost(device, "was restarted"))
        return exchange

    def learn(self, exchange: Exchange, question: Question) -> None:
        """Take in how long the answers of an exchange took, and whose were late."""
        self.answer_times.learn(question, seconds=exchange.took_s, waited_s=exchange.late)
        for device in exchange.late:
            allowance = self.answer_times.allow(question, [device])[device]
            self.inbound.late_answers.note(
                device,
                exchange.gathering.kind,
                exchange.gathering.step,
                on_answer=partial(self._learn_late, device, exchange, question),
                most_s=max(self._patience_s, allowance.deadline_s - exchange.late[device]),
            )

    def _learn_late(self, device: str, exchange: Exchange, question: Question) -> None:
        """Take in how long an answer took that came after it had been given up."""
        if exchange.timers.is_undisturbed(device):
            seconds = time.monotonic() - exchange.asked_at_s
            self.answer_times.learn(question, seconds={device: seconds}, waited_s={})

    async def _request(self, inquiry: Inquiry) -> Reply:
        device, message = inquiry.device, inquiry.request
        inquiries = self._outstanding.inquiries_like(message)
        inquiries[device] = inquiry
        num_sent = 0
        try:
            while True:
                reply = await inquiry.next()
                if reply is None:
                    await self._command(device, message)
                elif is_answer(message, reply):
                    assert isinstance(reply, Reply)
                    return reply
                elif isinstance(message, Assignment) and is_at_it(message, reply):
                    inquiry.note_sign()
                elif isinstance(reply, Refused) and reply.run == self.run:
                    self.registry.refusals[device] = reply.reason
                    raise DeviceGoneError(reply.reason)
                elif (
                    isinstance(message, Join)
                    and lacks_graphs(message, reply)
                    and num_sent < MAX_GRAPHS_SENT
                ):
                    num_sent += 1
                    inquiry.allow_anew(self._patient())
                    await self._send_graphs(device, message)
                else:
                    self.dropped.note(device)
        finally:
            if inquiries.get(device) is inquiry:
                del inquiries[device]

    def _session(self, device: str) -> str:
        return self.registry.records[device].status.session

    def _patient(self) -> Allowance:
        return Allowance(0.0, self._patience_s, is_learned=False)

    async def _send_graphs(self, device: str, join: Join) -> None:
        assert join.graphs is not None
        step = StepId(join.run, join.round, join.cluster, 0)
        await self.send(device, Frame(FrameKind.GRAPHS, step, self.graphs[join.graphs.digest]))

    async def _command(self, device: str, message: Request | Stop) -> None:
        topic = self._topics.down(device, "command")
        await self._bus.publish(topic, message.encode(), retain=False)

    async def _send(self, topic: str, frame: Frame) -> None:
        sent = await send_frame(self._bus, topic, frame, chunk_bytes=self._chunk_bytes)
        self.down_bytes += sent
