"""A device agent: bus events and finished work go in, the session says what to do."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor as ThreadPool
from functools import partial
from itertools import groupby

from device_agent.agent.background import BackgroundTasks, DroppedMessages
from device_agent.agent.desired import DesiredSettings, Started
from device_agent.agent.endpoint import DeviceEndpoint
from device_agent.agent.hosting import Hosting
from device_agent.agent.link_answers import LinkProbing
from device_agent.agent.listening import CommandReader, FrameTopics, OlderCoordinator
from device_agent.agent.measuring import Measuring
from device_agent.agent.own_id import OwnId
from device_agent.agent.publisher import Publisher
from device_agent.agent.trainer import Trainer
from device_agent.agent.uploads import Ranges, SendError, TurnMeter, Uploads, is_of
from device_agent.profiling.link import LinkProbe
from device_agent.profiling.machine import memory_sentence
from runtime.bus.bus import BusEvent, Connected, Delivery, Disconnected
from runtime.bus.pacing import Pacer
from runtime.errors import EdgeError, ProtocolError
from runtime.protocol.device import DeviceSession, SessionState
from runtime.protocol.events import (
    CommandArrived,
    DeviceCommand,
    DeviceEvent,
    FrameArrived,
    FrameSent,
    OpenPass,
    PartCame,
    PassOpened,
    Prepare,
    SendFrame,
    SendReply,
    TakeGraphs,
    Work,
    WorkFailed,
)
from runtime.wire.chunks.inbox import decode_chunk_of
from runtime.wire.commands import Assignment, Challenge, Join, MeasureLink
from runtime.wire.fields import Message
from runtime.wire.frames import Frame, FrameKind
from runtime.wire.published import DeviceProfile, DeviceStatus

TELL_EVERY_S = 3.0
"""So often a device says how far a frame is that takes long to come down."""

log = logging.getLogger(__name__)


class Agent:
    """Serves one device until it is cancelled or its id turns out to be another's."""

    def __init__(
        self,
        *,
        endpoint: DeviceEndpoint,
        status: DeviceStatus,
        profile: Callable[[], DeviceProfile],
        trainer: Trainer,
        compute: ThreadPool,
        hosting: Hosting | None = None,
    ) -> None:
        """Make an agent that is alone in its process, unless `hosting` says otherwise."""
        hosting = hosting or Hosting()
        device, topics = endpoint.device, endpoint.topics
        self._endpoint, self._device, self._topics = endpoint, device, topics
        self._status = status
        self._publisher = Publisher(endpoint, status, profile)
        self._own_id = OwnId(endpoint, status, self._publisher)
        self._profile = self._publisher.profile
        line = hosting.findings.line_of(hosting.link_class)
        self._uploads = Uploads(endpoint, self._profile, line)
        probe = LinkProbe(device, endpoint.bus, topics, chunk_bytes=endpoint.chunk_bytes)
        self._probing = LinkProbing(probe, self._publisher, hosting)
        self._trainer, self._compute = trainer, compute
        self._measuring = Measuring(device, trainer, self._profile, compute, hosting)
        self.session = DeviceSession()
        self._frames = self.session.frames
        self._told_s = 0.0  # When a frame was whole last, or we said how far it is.
        self._queue: asyncio.Queue[BusEvent | DeviceEvent] = asyncio.Queue()
        self._pacer: Pacer | None = None
        self._opening = asyncio.Lock()
        self._turn = TurnMeter(device=device)
        self.dropped = DroppedMessages(device)
        self._commands = CommandReader(device, self.dropped, self._reply)
        self._frame_topics = FrameTopics(endpoint)
        self._older = OlderCoordinator(endpoint)
        self._desired = hosting.desired or DesiredSettings(device, topics, Started())

    async def serve(self) -> None:
        """Claim the id, then answer the coordinator; the first failure stops all."""
        events = self._endpoint.bus.events()
        await self._endpoint.listen()
        await self._older.listen()
        await self._own_id.claim(events)
        await self._desired.listen(self._endpoint.bus)
        await self._publisher.announce()
        log.info("%s is waiting for a coordinator on site %s", self._device, self._topics.site)
        async with asyncio.TaskGroup() as tasks:
            self._background = BackgroundTasks(tasks, f"act {self._device}")
            tasks.create_task(self._pump(events), name=f"receive {self._device}")
            tasks.create_task(self._keep_profile(), name=f"profile {self._device}")
            tasks.create_task(self._own_id.hold(), name=f"hold {self._device}")
            while True:
                self._take(await self._queue.get())

    async def _keep_profile(self) -> None:
        """Measure what this device can do without a job, then keep its profile fresh."""
        await self._measuring.without_job()
        await self._profile.keep_fresh()

    async def tell_growth(self) -> None:
        """Publish the profile, for its data have become more."""
        await self._profile.publish()

    async def leave(self) -> None:
        """Say goodbye, unless the id is another's."""
        await self._own_id.leave()

    async def _pump(self, events: AsyncIterator[BusEvent]) -> None:
        async for event in events:
            self._queue.put_nowait(event)

    def _take(self, event: BusEvent | DeviceEvent) -> None:
        match event:
            case Delivery():
                self.receive(event)
            case Connected():
                log.info("%s is connected again", self._device)
                self._own_id.note_return()
                self._desired.note_connected()
                self._background.start_again("announce", self._publisher.announce)
            case Disconnected(reason):
                log.warning("%s lost the broker (%s); trying again", self._device, reason)
            case _:
                self._act(self.session.handle(event))

    def receive(self, delivery: Delivery) -> None:
        """Decode one message; whatever is wrong with it is said once and dropped."""
        log.debug("%s hears %d B on %s", self._device, len(delivery.payload), delivery.topic)
        try:
            if delivery.topic == self._topics.command(self._device):
                self._command(delivery.payload)
            elif delivery.topic == self._topics.command_of_wire_1(self._device):
                self._older.receive(delivery.payload, self._background)
            elif delivery.topic == self._topics.status(self._device):
                self._compare(delivery)
            elif delivery.topic == self._desired.topic:
                self._desired.take(delivery.payload)
                self._background.start_again("profile", self._profile.publish)
            elif delivery.topic == self._topics.down(self._device, "probe"):
                self._probing.probe.receive(delivery.payload)
            elif (kind := self._frame_topics.kind_of(delivery.topic)) is not None:
                self._frame(delivery.payload, kind)
        except ProtocolError as error:
            self.dropped.note(delivery.topic, error)

    def _command(self, payload: memoryview) -> None:
        message = self._commands.read(payload)
        if message is None:
            return
        if isinstance(message, Challenge):
            if message.session != self._status.session:
                self._assert_presence()
            return
        if isinstance(message, MeasureLink):
            self._background.start_once("link", partial(self._probing.measure, message))
            return
        was_assigned = self.session.state is not SessionState.UNASSIGNED
        commands = self.session.handle(CommandArrived(message, self._commands.quiet_s))
        self._act(commands)
        if was_assigned and self.session.state is SessionState.UNASSIGNED:
            dropped = self.dropped.sentence()
            log.info("%s is done with the run; %s%s", self._device, memory_sentence(), dropped)
        else:
            self._commands.note_taken(message, is_foreign=was_assigned and not commands)

    def _compare(self, delivery: Delivery) -> None:
        seen, retained = DeviceStatus.decode(delivery.payload), delivery.retained
        if self._own_id.is_to_be_told(seen, retained=retained):
            self._assert_presence()
        is_echo = seen.session == self._status.session and not retained
        if is_echo and self._desired.note_echo():
            self._background.start_again("profile", self._profile.publish)

    def _assert_presence(self) -> None:
        self._background.start_again("status", self._publisher.say_online)

    def _frame(self, payload: memoryview, kind: FrameKind) -> None:
        chunk, num_stale = decode_chunk_of(kind, payload), self._frames.num_stale
        frame = self._frames.add(chunk)
        if self._frames.num_stale > num_stale:
            return
        self._commands.note_heard()
        self._turn.arrived(kind, len(payload), micro_batch=chunk.step.micro_batch)
        now_s = asyncio.get_running_loop().time()
        if frame is not None:
            self._told_s = now_s
            self._profile.link = self._turn.completed(kind, self._profile.link, step=chunk.step)
            self._act(self.session.handle(FrameArrived("", frame)))
        elif now_s - self._told_s >= TELL_EVERY_S:
            self._told_s = now_s
            self._act(self.session.handle(PartCame(kind, chunk.step)))

    def _act(self, commands: list[DeviceCommand]) -> None:
        for is_work, group in groupby(commands, key=lambda command: isinstance(command, Work)):
            if is_work:
                work = [command for command in group if isinstance(command, Work)]
                run = self.session.assignment.run if self.session.assignment else 0
                self._background.start(self._work(partial(self._trainer.run, work), run))
                continue
            for command in group:
                self._act_on_one(command)

    def _act_on_one(self, command: DeviceCommand) -> None:
        match command:
            case Prepare(assignment):
                self._background.start(self._prepare(assignment))
            case OpenPass(join):
                self._background.start(self._open(join))
            case TakeGraphs(join, offer, tensors):
                log.info("%s got what it lacked of its side of the network", self._device)
                take = partial(self._trainer.take, join, offer, tensors)
                self._background.start(self._work(take, join.run))
            case SendReply(message):
                self._reply(message)
            case SendFrame(frame, only):
                self._background.start(self._send(frame, only))

    def _reply(self, message: Message) -> None:
        self._background.start_once(message, partial(self._publisher.reply, message))

    async def _prepare(self, assignment: Assignment) -> None:
        async with self._opening:
            if assignment is self.session.assignment:  # Else another came while this one waited.
                log.info("%s takes part in run %016x", self._device, assignment.run)
                await self._work(partial(self._trainer.prepare, assignment), assignment.run)

    async def _open(self, join: Join) -> None:
        async with self._opening:
            if join is not self.session.join:
                return  # Another one came while this one waited.
            await self._frame_topics.listen_to(join)
            self._turn = TurnMeter(device=self._device)
            self._pacer = None if (bps := join.up_share_bps) is None else Pacer(bps)
            if self._measuring.is_found(join):
                await self._work(lambda: PassOpened(join, (), ()), join.run)
            else:
                await self._work(partial(self._trainer.open, join), join.run)

    async def _work(self, do: Callable[[], DeviceEvent], run: int) -> None:
        try:
            event = await asyncio.get_running_loop().run_in_executor(self._compute, do)
            await self._measuring.before_answer(event)
        except EdgeError as error:
            event = WorkFailed(run, str(error))
        except Exception as error:  # The user's own network and data may raise anything.
            log.exception("%s failed at its work", self._device)
            event = WorkFailed(run, f"{type(error).__name__}: {error}")
        self._queue.put_nowait(event)
        await self._measuring.after_answer(event)

    async def _send(self, frame: Frame, only: Ranges) -> None:
        """Upload; the turn may be over before a slow upload is, and then another's has begun."""
        try:
            was_sent = await self._uploads.send(frame, self._turn, self._pacer, only=only)
        except SendError as error:
            self._queue.put_nowait(WorkFailed(frame.step.run, str(error)))
            return
        self._queue.put_nowait(FrameSent(frame.kind, frame.step))
        is_end = was_sent and not only and frame.kind is FrameKind.WEIGHTS
        if is_end and (join := self.session.join) and is_of(frame.step, join):
            await self._end_turn(join)

    async def _end_turn(self, join: Join) -> None:
        metrics = self._turn.metrics(
            join, forward_s=self._trainer.forward_s, backward_s=self._trainer.backward_s
        )
        await self._publisher.tell_metrics(metrics)
        await self._profile.refresh()
