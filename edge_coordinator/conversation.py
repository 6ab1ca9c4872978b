"""Everything the coordinator says to its devices and hears from them, for one run."""

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

from edge_coordinator.link_echo import LinkEcho
from edge_coordinator.registry import Change, Registry
from runtime.bus import Bus, BusEvent, Connected, Delivery, Disconnected
from runtime.drive import FrameInbox, leaf_of, send_frame
from runtime.errors import EdgeError, ProtocolError
from runtime.messages import (
    AnyReply,
    Assignment,
    Join,
    Joined,
    LinkMeasured,
    MeasureLink,
    NeedGraphs,
    Ready,
    Refused,
    Stop,
    decode_reply,
)
from runtime.protocol.events import DeviceLost, FrameArrived, Gathered, GatheringEvent, Overdue
from runtime.protocol.gathering import Gathering
from runtime.published import DeviceMetrics, DeviceProfile, DeviceStatus
from runtime.tensors import Frame, FrameKind, StepId, Tensor, TensorSpec
from runtime.topics import DeviceTopic, Topics

GRACE_S = 3.0
"""How long a device whose connection broke may take to come back before it counts as lost."""
MAX_WAITING_REPLIES = 16
"""Replies of one device that nobody has looked at yet; more are dropped."""
REPEAT_AFTER_S = 5.0
"""Silence after which a request is repeated; the pause grows with every repeat."""

MAX_GRAPHS_SENT = 3
"""How often graphs are sent for one request, to a device that says it lacks them still."""

log = logging.getLogger(__name__)


Request = Assignment | Join | MeasureLink


class DeviceGoneError(EdgeError):
    """A device went away, refused, or did not answer in time."""


class Conversation:
    """Requests out and answers in; one exchange of frames at a time."""

    def __init__(
        self,
        bus: Bus,
        topics: Topics,
        *,
        run: int,
        patience_s: float,
        chunk_bytes: int,
        on_other: Callable[[Delivery], None],
        on_connected: Callable[[], None],
    ) -> None:
        """`on_other` takes what no device sent; `on_connected` hears of a new connection."""
        self.run = run
        self.registry = Registry()
        self.changed = asyncio.Event()
        """Set whenever a device has come or gone."""
        self.learnt = asyncio.Event()
        """Set whenever something is known of a device that was not: presence, profile, metrics."""
        self.up_bytes = 0
        self.down_bytes = 0
        self.dropped: Counter[str] = Counter()
        """Device id to the number of its messages that were dropped."""
        self.graphs: dict[str, tuple[Tensor, ...]] = {}
        """Graphs that were offered, by digest, as a frame carries them."""
        self._bus = bus
        self._topics = topics
        self._patience_s = patience_s
        self._chunk_bytes = chunk_bytes
        self._on_other = on_other
        self._on_connected = on_connected
        self._inboxes: dict[str, FrameInbox] = {}
        self._exchange: Exchange | None = None
        self._replies: dict[str, asyncio.Queue[AnyReply | None]] = {}
        self._echoes: dict[str, LinkEcho] = {}
        self._grace: dict[str, asyncio.TimerHandle] = {}
        self._turns: dict[int, itertools.count[int]] = {}

    async def open(self) -> None:
        """Listen to the devices of the site."""
        for leaf in ("status", "profile", "metrics", "up/#"):
            await self._bus.subscribe(self._topics.every_device(leaf))

    async def listen(self, events: AsyncIterator[BusEvent]) -> None:
        """Take in whatever the bus brings, until it is closed."""
        async for event in events:
            match event:
                case Delivery():
                    self._receive(event)
                case Disconnected(reason):
                    log.warning("lost the broker (%s); trying again", reason)
                case Connected():
                    log.info("connected again")
                    self._on_connected()
                    self._post(Overdue())

    # Requests

    async def assign(self, device: str, assignment: Assignment) -> None:
        """Give a device the job and note its answer; DeviceGoneError if there is none."""
        reply = await self._request(device, assignment)
        if isinstance(reply, Ready):
            self.registry.note_ready(device, reply)

    async def join(self, device: str, join: Join) -> None:
        """Have a device take part in a cluster's turn; DeviceGoneError if it does not."""
        await self._request(device, join)

    def next_turn(self, round_: int) -> int:
        """Number the turns of a round: one that is tried again is another turn."""
        if round_ not in self._turns:
            self._turns = {round_: itertools.count()}
        return next(self._turns[round_])

    async def measure_link(self, device: str, request: MeasureLink) -> LinkMeasured:
        """Have a device measure its link, with us as the echo; one device at a time.

        DeviceGoneError if it does not answer. The figures are in its profile too.
        """
        echo = LinkEcho(
            self._bus, self._topics, device=device, request=request, chunk_bytes=self._chunk_bytes
        )
        self._echoes[device] = echo
        serving = asyncio.create_task(echo.serve(), name=f"echo {device}")
        try:
            reply = await self._request(device, request)
        finally:
            del self._echoes[device]
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

    def exchange(self, gathering: Gathering, ask_again: "AskAgainFunction") -> "Exchange":
        """Expect answers from now on; those to the exchange before are stale."""
        self._exchange = Exchange(gathering, ask_again, patience_s=self._patience_s)
        for device in gathering.missing:
            if device not in self.registry.ready and device not in self._grace:
                self._post(DeviceLost(device, "is not there any more"))
        return self._exchange

    async def _request(self, device: str, message: Request) -> Ready | Joined | LinkMeasured:
        queue = self._replies[device] = asyncio.Queue(MAX_WAITING_REPLIES)
        pause_s, waited_s = REPEAT_AFTER_S, 0.0
        try:
            while waited_s < self._patience_s:
                await self._command(device, message)
                try:
                    async with asyncio.timeout(pause_s):
                        return await self._answer(device, message, queue)
                except TimeoutError:
                    waited_s, pause_s = waited_s + pause_s, pause_s * 2
        finally:
            del self._replies[device]
        raise DeviceGoneError(f"no answer to {message.kind} within {waited_s:.0f} s")

    async def _answer(
        self,
        device: str,
        message: Request,
        queue: asyncio.Queue[AnyReply | None],
    ) -> Ready | Joined | LinkMeasured:
        num_sent = 0
        while True:
            reply = await queue.get()
            match message, reply:
                case _, None:
                    raise DeviceGoneError("went away")
                case _, Refused(run=run, reason=reason) if run == self.run:
                    self.registry.refusals[device] = reason
                    raise DeviceGoneError(reason)
                case Assignment(), Ready(run=run) if run == self.run:
                    return reply
                case Join(), Joined() if _place(reply) == _place(message):
                    return reply
                case MeasureLink(probe=probe), LinkMeasured() if reply.probe == probe:
                    return reply
                case Join(), NeedGraphs() if _lacks(reply, message) and num_sent < MAX_GRAPHS_SENT:
                    num_sent += 1
                    await self._send_graphs(device, message)
                    continue
            self.dropped[device] += 1

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

    # Answers

    def _receive(self, delivery: Delivery) -> None:
        """Take one message; whatever is wrong with it is said once a sender and dropped."""
        topic = self._topics.parse(delivery.topic)
        sender = topic.device if topic else delivery.topic
        try:
            if topic is None:
                self._on_other(delivery)
            else:
                self._receive_from(topic, delivery)
        except ProtocolError as error:
            if not self.dropped[sender]:
                log.warning("dropped a message of %s on %s: %s", sender, delivery.topic, error)
            self.dropped[sender] += 1

    def _receive_from(self, topic: DeviceTopic, delivery: Delivery) -> None:
        match topic.leaf:
            case "status":
                status = DeviceStatus.decode(delivery.payload)
                self._note(topic.device, self.registry.note_status(topic.device, status))
            case "profile":
                profile = DeviceProfile.decode(delivery.payload)
                self.registry.note_profile(topic.device, profile)
                self.learnt.set()
            case "metrics":
                metrics = DeviceMetrics.decode(delivery.payload)
                self.registry.note_metrics(topic.device, metrics)
                self.learnt.set()
            case "up/reply":
                self._reply(topic.device, decode_reply(delivery.payload))
            case "up/probe" if topic.device in self._echoes:
                self._echoes[topic.device].receive(delivery.payload)
            case "up/smashed":
                self._frame(topic.device, FrameKind.SMASHED, delivery.payload)
            case "up/weights":
                self._frame(topic.device, FrameKind.WEIGHTS, delivery.payload)

    def _reply(self, device: str, reply: AnyReply) -> None:
        """Hand a reply to whoever waits for it; a refusal amid a turn loses the device at once."""
        queue = self._replies.get(device)
        if queue is not None and not queue.full():
            queue.put_nowait(reply)
        elif queue is None and isinstance(reply, Refused) and reply.run == self.run:
            if device in self.registry.ready:
                self.registry.refusals[device] = reply.reason
                self._lose(device, reply.reason)
        else:
            self.dropped[device] += 1

    def _frame(self, device: str, kind: FrameKind, payload: memoryview) -> None:
        if device not in self.registry.records:
            self.dropped[device] += 1
            return
        if device not in self._inboxes:
            self._inboxes[device] = FrameInbox(partial(self._asked_for, device))
        inbox = self._inboxes[device]
        self.up_bytes += len(payload)
        num_stale = inbox.num_stale
        frame = inbox.feed(payload, kind=kind)
        if frame is not None:
            self._post(FrameArrived(device, frame))
        elif self._exchange is not None and inbox.num_stale == num_stale:
            self._exchange.note_chunk()

    def _asked_for(self, device: str, kind: FrameKind, step: StepId) -> Sequence[TensorSpec] | None:
        gathering = self._exchange.gathering if self._exchange else None
        return gathering.asked_for(device, kind, step) if gathering else None

    def _note(self, device: str, change: Change) -> None:
        """Act on a change of presence: a broken connection has a moment to come back."""
        if change is Change.NOTHING:
            return
        self.changed.set()
        self.learnt.set()
        waiting = self._grace.pop(device, None)
        if waiting is not None:
            waiting.cancel()
        match change:
            case Change.WENT:
                loop = asyncio.get_running_loop()
                self._grace[device] = loop.call_later(GRACE_S, self._lose, device, "went offline")
            case Change.RESTARTED:
                self._lose(device, "was restarted")
            case Change.ARRIVED if self.registry.records[device].ready is None:
                self._lose(device, "was restarted")  # Whoever it was before.
            case Change.ARRIVED if self._is_missing(device):
                self._post(Overdue())

    def _lose(self, device: str, reason: str) -> None:
        self._grace.pop(device, None)
        queue = self._replies.get(device)
        if queue is not None and not queue.full() and device not in self.registry.online:
            queue.put_nowait(None)  # Nobody will answer.
        if self._is_missing(device):
            self._post(DeviceLost(device, reason))

    def _is_missing(self, device: str) -> bool:
        return self._exchange is not None and device in self._exchange.gathering.missing

    def _post(self, event: GatheringEvent) -> None:
        if self._exchange is not None:
            self._exchange.post(event)


AskAgainFunction = Callable[[str], Awaitable[None]]


class Exchange:
    """One gathering under way: events in, the gathered answers out."""

    def __init__(
        self, gathering: Gathering, ask_again: AskAgainFunction, *, patience_s: float
    ) -> None:
        self.gathering = gathering
        self._ask_again = ask_again
        self._patience_s = patience_s
        self.answered_at_s: dict[str, float] = {}
        self._events: asyncio.Queue[GatheringEvent] = asyncio.Queue()
        self._is_under_way = False

    def post(self, event: GatheringEvent) -> None:
        """Take an event, to be handled in order."""
        if isinstance(event, FrameArrived):
            self.answered_at_s.setdefault(event.device, time.monotonic())
        self._events.put_nowait(event)

    def note_chunk(self) -> None:
        """Take note that part of an answer came: that device is slow, not silent."""
        self._is_under_way = True

    async def gathered(self) -> Gathered:
        """Wait until every device has answered, is lost, or has been silent for too long."""
        pause_s, silent_s = REPEAT_AFTER_S, 0.0
        while True:
            try:
                async with asyncio.timeout(pause_s):
                    event = await self._events.get()
            except TimeoutError:
                if self._is_under_way:
                    self._is_under_way, silent_s = False, 0.0
                    continue
                silent_s, pause_s = silent_s + pause_s, pause_s * 2
                event = Overdue()
            else:
                if not isinstance(event, Overdue):
                    silent_s, pause_s = 0.0, REPEAT_AFTER_S
            events = [event] if silent_s < self._patience_s else self._give_up(silent_s)
            for one in events:
                result = await self._handle(one)
                if result is not None:
                    return result

    async def _handle(self, event: GatheringEvent) -> Gathered | None:
        for command in self.gathering.handle(event):
            if isinstance(command, Gathered):
                return command
            await self._ask_again(command.device)
        return None

    def _give_up(self, silent_s: float) -> list[GatheringEvent]:
        reason = f"gave no answer for {silent_s:.0f} s"
        return [DeviceLost(device, reason) for device in self.gathering.missing]


def _place(message: Join | Joined | NeedGraphs) -> tuple[int, int, int]:
    return (message.run, message.round, message.cluster)


def _lacks(reply: NeedGraphs, join: Join) -> bool:
    """Whether a device asks for just what it was offered."""
    same_place = _place(reply) == _place(join)
    return same_place and join.graphs is not None and reply.digest == join.graphs.digest
