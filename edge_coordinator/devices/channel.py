"""Everything the coordinator says to its devices and hears from them, for one run."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Mapping

from edge_coordinator.devices.answer_times import AnswerTimes
from edge_coordinator.devices.deadlines import Answer, Question
from edge_coordinator.devices.inbound import DropCounts, Inbound, OwnTopics
from edge_coordinator.devices.link_measurement import LinkEcho
from edge_coordinator.devices.outbound import Outbound
from edge_coordinator.devices.peers import Peers
from edge_coordinator.devices.registry import Registry
from edge_coordinator.devices.requests import (
    Answered,
    Awaited,
    DeviceGoneError,
    Exchange,
    LateError,
    Replies,
)
from edge_coordinator.devices.stop_secrets import StopSecrets
from edge_coordinator.devices.tolerance import Tolerance
from runtime.bus.bus import Bus, BusEvent, Connected, Delivery, Disconnected
from runtime.errors import EdgeError
from runtime.protocol.coordinator_events import (
    Abandoned,
    AskedFor,
    BusBack,
    BusLost,
    CoordinatorCommand,
    Deliver,
    DeliverPart,
    FrameRequest,
    GiveUp,
    NoteFree,
    NoteLateAnswer,
    NoteLost,
    NoteReady,
    NoteRefusal,
    Request,
    SendCommand,
    SendParts,
)
from runtime.protocol.events import FrameSent
from runtime.protocol.timers import Allowance
from runtime.wire.commands import Assignment, Join, LinkMeasured, MeasureLink, Ready
from runtime.wire.frames import Frame, FrameKind, StepId, Tensor
from runtime.wire.topics import Topics

MAX_TURNS = 0xFFFF
"""Of a round, however often it is tried; the number beyond is that of an evaluation."""

log = logging.getLogger(__name__)


class DeviceChannel:
    """Requests out and answers in; what to say when is decided by each device's session."""

    def __init__(
        self,
        bus: Bus,
        topics: Topics,
        own: OwnTopics | None = None,
        *,
        run: int,
        tolerance: Tolerance,
        chunk_bytes: int,
    ) -> None:
        """`own` is who else listens on this connection, if anybody does."""
        self.run = run
        self.dropped = DropCounts(max_unusable=tolerance.max_unusable)
        self.answer_times = AnswerTimes(
            patience_s=tolerance.patience_s, least_margin_s=tolerance.margin_s
        )
        self._bus = bus
        self._topics = topics
        self._patient = Allowance(0.0, tolerance.patience_s, is_learned=False)
        self._chunk_bytes = chunk_bytes
        self._own = own
        self._turns: dict[int, itertools.count[int]] = {}
        self._stops = StopSecrets()
        self.replies = Replies()
        """Who waits for what devices answer."""
        self._questions: dict[str, Question] = {}
        """By device, what kind of frame it was asked for last."""
        self.peers = Peers(run=run, patience_s=tolerance.patience_s, carry_out=self._carry_out)
        """Of each device, how far it is."""
        self._outbound = Outbound(bus, topics, chunk_bytes=chunk_bytes, on_sent=self._note_sent)
        self.registry = Registry(busy=self.peers.busy)
        self.inbound = Inbound(
            topics, self.registry, self.peers, self._outbound, self.dropped, own=own
        )
        self.changed, self.learnt = self.inbound.changed, self.inbound.learnt
        """Set whenever a device has come or gone, or is ready; and when anything is learnt."""

    @property
    def graphs(self) -> dict[str, tuple[Tensor, ...]]:
        """Graphs that were offered, by digest, as a frame carries them."""
        return self._outbound.graphs

    @property
    def down_bytes(self) -> int:
        """Bytes of frames that went to devices."""
        return self._outbound.num_bytes

    @property
    def busy(self) -> dict[str, str]:
        """Device id to why it is asked for nothing now, in order."""
        return dict(sorted(self.peers.busy.items()))

    async def open(self) -> None:
        """Listen to the devices of the site."""
        for leaf in ("tags", "status", "profile", "metrics", "reply", "up/+"):
            await self._bus.subscribe(self._topics.every_device(leaf))

    async def listen(self, events: AsyncIterator[BusEvent]) -> None:
        """Take in whatever the bus brings, until it is closed; raises what cannot be sent."""
        try:
            async with asyncio.TaskGroup() as tasks:
                failing = tasks.create_task(self._outbound.until_failed(), name="send")
                async for event in events:
                    self._take(event)
                failing.cancel()
        finally:
            self._outbound.close()
            self.peers.close()

    async def assign(self, device: str, assignment: Assignment) -> None:
        """Give a device the job and note its answer; DeviceGoneError if it takes no part."""
        self.registry.assignment = assignment
        session = self._session(device)
        told = self._stops.with_digest(device, assignment)
        reply = (await self._ask(device, told, self._patient)).reply
        is_stale = self.registry.assignment is not assignment or self._session(device) != session
        if not isinstance(reply, Ready) or is_stale:
            return
        if unfit := self.registry.note_ready(device, reply):
            raise DeviceGoneError(unfit)

    async def join(self, device: str, join: Join) -> None:
        """Have a device take part in a cluster's turn; DeviceGoneError if it does not."""
        question = Question(Answer.JOINED, {})
        try:
            allowance = self.answer_times.allow(question, [device])[device]
            answered = await self._ask(device, join, allowance)
        except LateError as error:
            self.answer_times.learn(question, seconds={}, waited_s={device: error.waited_s})
            raise
        if answered.took_s is not None:
            self.answer_times.learn(question, seconds={device: answered.took_s}, waited_s={})

    async def measure(self, device: str, join: Join) -> None:
        """Have a device time its compute, which may take long; DeviceGoneError if it does not."""
        await self._ask(device, join, self._patient)

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
        self.inbound.echoes[device] = echo
        serving = asyncio.create_task(echo.serve(), name=f"echo {device}")
        try:
            reply = (await self._ask(device, request, self._patient)).reply
        finally:
            del self.inbound.echoes[device]
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        assert isinstance(reply, LinkMeasured)
        return reply

    async def stop(self, device: str) -> None:
        """Tell a device that the run is over."""
        await self._outbound.command(device, self._stops.stop(device, run=self.run))

    def exchange(self, requests: Mapping[str, FrameRequest], question: Question) -> Exchange:
        """Expect answers to frames from now on; those to the exchange before are stale."""
        exchange = Exchange(requests)
        self.listen_for(exchange)
        for device, request in requests.items():
            self.ask(device, request, question)
        return exchange

    def listen_for(self, awaited: Awaited) -> None:
        """Give frames of devices to somebody else from now on."""
        self.abandon()
        self.replies.exchange = awaited

    def ask(self, device: str, request: FrameRequest, question: Question) -> None:
        """Expect an answer to frames that one device is sent."""
        self._questions[device] = question
        up_bps = self.registry.measured_up_bps(device)
        allowance = self.answer_times.allow_frame(question, device, request, up_bps=up_bps)
        self.peers.tell(device, AskedFor(request, allowance))

    def abandon(self) -> None:
        """Wait for no answer of the last exchange any more."""
        exchange, self.replies.exchange = self.replies.exchange, None
        if exchange is not None:
            for device, request in list(exchange.outstanding.items()):
                self.peers.tell(device, Abandoned(request))

    async def publish(self, devices: Mapping[str, object], frame: Frame) -> None:
        """Send a frame to all of a cluster's devices at once, which listen."""
        await self._outbound.to_cluster(devices, frame)

    async def send(self, device: str, frame: Frame) -> None:
        """Send a frame to one device."""
        await self._outbound.to_device(device, frame)

    def learn(self, exchange: Exchange, question: Question) -> None:
        """Take in how long the answers of an exchange took, and whose were late."""
        self.answer_times.learn(question, seconds=exchange.took_s, waited_s=exchange.late)

    def _take(self, event: BusEvent) -> None:
        match event:
            case Delivery():
                self.inbound.receive(event)
            case Disconnected(reason):
                log.warning("lost the broker (%s); trying again", reason)
                self.peers.tell_all(BusLost())
            case Connected():
                log.warning("connected to the broker again")
                if self._own is not None:
                    self._own.republish()
                self.peers.tell_all(BusBack())

    async def _ask(self, device: str, request: Request, allowance: Allowance) -> Answered:
        if isinstance(request, Join):
            if self.registry.records[device].ready is None:
                raise DeviceGoneError("was restarted")  # It is given the job first.
            self._outbound.joins[device] = request
        answered = self.replies.expect(device, request)
        self.peers.tell(device, AskedFor(request, allowance))
        try:
            return await answered
        finally:
            if answered.cancelled():
                self.peers.tell(device, Abandoned(request))
            self.replies.forget(device, request, answered)

    def _carry_out(self, device: str, command: CoordinatorCommand) -> None:
        match command:
            case SendCommand(message):
                self._outbound.start_command(device, message)
            case SendParts():
                self._outbound.start_parts(device, command)
            case Deliver():
                self._outbound.settle(device, command.what, took_s=command.took_s)
                self.answer_times.note_rate(device, command)
                self.replies.deliver(device, command, now_s=asyncio.get_running_loop().time())
            case DeliverPart(_, frame) if self.replies.exchange is not None:
                self.replies.exchange.part(device, frame)
            case GiveUp():
                self._outbound.settle(device, command.what, took_s=None)
                self.replies.give_up(device, command)
            case _:
                self._note(device, command)

    def _note(self, device: str, command: CoordinatorCommand) -> None:
        """Take in what a session has learned of its device."""
        match command:
            case NoteRefusal(reason) if self._may_refuse(device):
                self.registry.note_refusal(device, reason)
            case NoteReady(ready) if self.registry.is_unready(device):
                self.registry.note_ready(device, ready)
                self.inbound.tell_all()
            case NoteLateAnswer(took_s):
                question = self._questions[device]
                self.answer_times.learn(question, seconds={device: took_s}, waited_s={})
            case NoteLost():
                self._outbound.start_command(device, self._stops.stop(device, run=self.run))
                self.inbound.note_lost(device)
            case NoteFree():
                self.inbound.tell_all()
            case _:
                self.dropped.note(device)

    def _may_refuse(self, device: str) -> bool:
        return self.registry.is_assigned(device) or self.replies.is_awaited(device)

    def _note_sent(self, device: str, kind: FrameKind, step: StepId) -> None:
        self.peers.tell(device, FrameSent(kind, step))

    def _session(self, device: str) -> str:
        return self.registry.records[device].status.session
