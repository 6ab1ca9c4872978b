"""Where a device hears frames from, and what a coordinator of another version says."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from math import inf

from device_agent.agent.background import BackgroundTasks, DroppedMessages
from device_agent.agent.endpoint import DeviceEndpoint
from runtime.errors import BusError, UnknownKindError
from runtime.wire.chunks.inbox import leaf_of
from runtime.wire.commands import AnyCommand, Assignment, Join, Refused, Stop
from runtime.wire.control import decode_command
from runtime.wire.frames import FrameKind
from runtime.wire.versions import (
    LAST_OF_WIRE_1,
    Incompatible,
    UnknownCommand,
    Versions,
    cannot_work,
    why_incompatible,
)

MAX_TOLD = 20
"""So many unknown kinds of commands are told of: whoever makes them up can make up many."""

log = logging.getLogger(__name__)


class FrameTopics:
    """The topics on which frames come to one device: its own, and its cluster's."""

    def __init__(self, endpoint: DeviceEndpoint) -> None:
        self._device, self._bus = endpoint.device, endpoint.bus
        self._topics = endpoint.topics
        self._clusters: dict[str, FrameKind] = {}
        own = (FrameKind.MODEL, FrameKind.GRADIENT, FrameKind.GRAPHS)
        self._kinds = {self._topics.down(self._device, leaf_of(kind)): kind for kind in own}

    def kind_of(self, topic: str) -> FrameKind | None:
        """What comes on a topic; None if no frames do."""
        return self._clusters.get(topic) or self._kinds.get(topic)

    async def listen_to(self, join: Join) -> None:
        """Hear what this turn's cluster is sent at once, and no other."""
        wanted = {self._topics.cluster_model(join.cluster): FrameKind.MODEL}
        if join.aggregated is not None:
            wanted[self._topics.cluster_gradient(join.cluster)] = FrameKind.GRADIENT
        before, self._clusters = self._clusters, wanted
        for topic in before.keys() - wanted.keys():
            await self._bus.unsubscribe(topic)
        for topic, kind in wanted.items():
            if topic not in before:
                await self._hear(topic, kind)

    async def _hear(self, topic: str, kind: FrameKind) -> None:
        try:
            await self._bus.subscribe(topic)
        except BusError as error:
            if kind is FrameKind.MODEL:
                raise
            # A fleet's older access list may not have it: the coordinator finds out by asking.
            log.warning("%s gets aggregated gradients late, one by one: %s", self._device, error)


class CommandReader:
    """Reads commands; what only a newer coordinator knows is counted, and told of once."""

    def __init__(
        self, device: str, dropped: DroppedMessages, reply: Callable[[UnknownCommand], None]
    ) -> None:
        """`reply` answers the coordinator."""
        self._device = device
        self._dropped = dropped
        self._reply = reply
        self._unknown: set[str] = set()
        self._heard_s = -inf

    def read(self, payload: memoryview) -> AnyCommand | None:
        """Give a command; None if there is nothing to be done about it."""
        try:
            message = decode_command(payload, on_unknown=self._dropped.note_fields)
        except UnknownKindError as error:
            self._dropped.counts["unknown command"] += 1
            self._tell(error)
            return None
        if isinstance(message, Incompatible):
            why = why_incompatible(message.version, here="this agent") or "says so"
            log.warning("%s is of no use to the coordinator, which %s", self._device, why)
            return None
        return message

    @property
    def quiet_s(self) -> float:
        """How long ago whoever gave this device its job was heard of."""
        return asyncio.get_running_loop().time() - self._heard_s

    def note_heard(self) -> None:
        """Take note that whoever gave this device its job speaks."""
        self._heard_s = asyncio.get_running_loop().time()

    def note_taken(self, message: AnyCommand, *, is_foreign: bool) -> None:
        """Take note of a command that was acted on, or is no word of whoever gave the job."""
        if not isinstance(message, Assignment | Stop):
            self.note_heard()
        elif is_foreign:
            self._dropped.note_foreign(message)

    def _tell(self, error: UnknownKindError) -> None:
        if error.kind in self._unknown or len(self._unknown) >= MAX_TOLD:
            return
        self._unknown.add(error.kind)
        log.warning("%s ignores what a newer coordinator may have sent: %s", self._device, error)
        self._reply(UnknownCommand(command=error.kind))


class OlderCoordinator:
    """A coordinator of version 0.2 or older, which sends and listens elsewhere: it is told so."""

    def __init__(self, endpoint: DeviceEndpoint) -> None:
        self._endpoint = endpoint
        self._device, self._topics = endpoint.device, endpoint.topics
        self._is_told = False

    async def listen(self) -> None:
        """Hear it, if the broker's access list lets this device."""
        with contextlib.suppress(BusError):
            await self._endpoint.bus.subscribe(self._topics.command_of_wire_1(self._device))

    def receive(self, payload: memoryview, background: BackgroundTasks) -> None:
        """Refuse an assignment; nothing else is asked before it is answered."""
        message = decode_command(payload)
        if not isinstance(message, Assignment):
            return
        if not self._is_told:
            self._is_told = True
            why = cannot_work(LAST_OF_WIRE_1, Versions.own(), here="this agent")
            log.warning("%s is of no use to the coordinator, which %s", self._device, why)
        reason = cannot_work(Versions.own(), LAST_OF_WIRE_1, here="this coordinator")
        refused = Refused(run=message.run, reason=reason)
        background.start_once(("refuse", message.run), partial(self._refuse, refused))

    async def _refuse(self, refused: Refused) -> None:
        await self._endpoint.publish(self._topics.reply_of_wire_1(self._device), refused)
