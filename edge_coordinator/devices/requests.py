"""Requests under way: one gathering of frames from many devices, one control message to each."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from edge_coordinator.devices.deadlines import Allowance
from edge_coordinator.devices.timers import AnswerTimers
from runtime.errors import EdgeError
from runtime.protocol.events import DeviceLost, FrameArrived, Gathered, GatheringEvent, Overdue
from runtime.protocol.gathering import Gathering
from runtime.wire.commands import (
    AnyReply,
    Assignment,
    Join,
    Joined,
    LinkMeasured,
    MeasureLink,
    NeedGraphs,
    Preparing,
    Ready,
)

AskAgainFunction = Callable[[str], Awaitable[None]]

MAX_WAITING_REPLIES = 16
"""Replies of one device that nobody has looked at yet; more are dropped."""

Request = Assignment | Join | MeasureLink
Reply = Ready | Joined | LinkMeasured


class Exchange:
    """Gathers one answer of each device, or does without those that are lost or late."""

    def __init__(
        self,
        gathering: Gathering,
        ask_again: AskAgainFunction,
        *,
        timers: AnswerTimers,
        asked_at_s: float,
    ) -> None:
        self.gathering = gathering
        self.timers = timers
        self.asked_at_s = asked_at_s
        self.answered_at_s: dict[str, float] = {}
        self.took_s: dict[str, float] = {}
        """Device id to how long its answer took, unless a connection broke meanwhile."""
        self.late: dict[str, float] = {}
        """Device id to how long its answer was waited for in vain."""
        self._ask_again = ask_again
        self._events: asyncio.Queue[GatheringEvent] = asyncio.Queue()
        self._wake_s: float | None = None
        """When to look at the clocks of those whose answers are missing; None if not known.

        Whatever comes only moves it back, so it is worked out once a waking and not once a
        message; a new connection may move it forward.
        """

    def waits_for(self, device: str) -> bool:
        """Whether this device's answer has not come yet, nor is it given up."""
        return device in self.gathering.missing and device not in self.answered_at_s

    def post(self, event: GatheringEvent) -> None:
        """Take an event, to be handled in order."""
        if isinstance(event, FrameArrived) and event.device not in self.answered_at_s:
            now_s = self.answered_at_s[event.device] = time.monotonic()
            if self.timers.is_undisturbed(event.device):
                self.took_s[event.device] = now_s - self.asked_at_s
        self._events.put_nowait(event)

    def note_part(self, device: str) -> None:
        """Take note that part of an answer came."""
        self.timers.note_part(device, now_s=time.monotonic())

    def pause(self) -> None:
        """Give nobody up while our own connection is down."""
        self.timers.pause()
        self._wake_s = None

    def resume(self) -> None:
        """Ask everyone again that is missing: our connection is back."""
        self.timers.restart(now_s=time.monotonic())
        self._wake_s = None
        for device in self.gathering.missing:
            self.post(Overdue(device))

    def note_return(self, device: str) -> None:
        """Ask a device again that has found its connection again."""
        if self.waits_for(device) and self.timers.note_return(device, now_s=time.monotonic()):
            self._wake_s = None
            self.post(Overdue(device))

    async def gathered(self) -> Gathered:
        """Wait until every device has answered, is lost, or is late."""
        while True:
            if self._wake_s is None:
                self._wake_s = self.timers.wake_s(self._unanswered())
            try:
                async with asyncio.timeout(max(self._wake_s - time.monotonic(), 0.0)):
                    events = [await self._events.get()]
            except TimeoutError:
                events, self._wake_s = self._due(), None
            for event in events:
                result = await self._handle(event)
                if result is not None:
                    return result

    def _due(self) -> list[GatheringEvent]:
        """Whom to ask again, and whom to give up."""
        now_s, waiting = time.monotonic(), self._unanswered()
        late = self.timers.late(waiting, now_s=now_s)
        self.late |= {device: self.timers.waited_s(device, now_s=now_s) for device in late}
        overdue = self.timers.overdue(waiting, now_s=now_s)
        return [
            *(DeviceLost(device, self._why_late(device)) for device in late),
            *(Overdue(device) for device in overdue if device not in late),
        ]

    def _unanswered(self) -> list[str]:
        """Whose answers have not come; one that has may still wait to be handled."""
        return [device for device in self.gathering.missing if device not in self.answered_at_s]

    def _why_late(self, device: str) -> str:
        expected_s = self.timers.expected_s(device)
        expected = f"; {expected_s:.3g} s were expected" if expected_s else ""
        return f"gave no answer within {self.late[device]:.3g} s{expected}"

    async def _handle(self, event: GatheringEvent) -> Gathered | None:
        for command in self.gathering.handle(event):
            if isinstance(command, Gathered):
                return command
            if self.waits_for(command.device):  # Else its answer waits to be handled.
                await self._ask_again(command.device)
        return None


class DeviceGoneError(EdgeError):
    """A device went away, refused, or did not answer in time."""


class LateError(DeviceGoneError):
    """A device that is there did not answer in time."""

    def __init__(self, what: str, waited_s: float) -> None:
        super().__init__(f"gave no answer to {what} within {waited_s:.3g} s")
        self.waited_s = waited_s


class Inquiry:
    """What is asked of a device, the replies that wait to be looked at, and its clock."""

    def __init__(self, device: str, request: Request, allowance: Allowance) -> None:
        self.device = device
        self.request = request
        self.timers = AnswerTimers({device: allowance}, now_s=time.monotonic())
        self._replies: asyncio.Queue[AnyReply] = asyncio.Queue(MAX_WAITING_REPLIES)
        self._changed = asyncio.Event()
        self._lost = ""
        self._is_due = True

    def post(self, reply: AnyReply) -> bool:
        """Take a reply; False if too many wait already."""
        if self._replies.full():
            return False
        self._replies.put_nowait(reply)
        self._changed.set()
        return True

    def lose(self, reason: str) -> None:
        """End it: the device will not answer."""
        self._lost = reason
        self._changed.set()

    def pause(self) -> None:
        """Let the clock stand while our own connection is down."""
        self.timers.pause()
        self._changed.set()

    def resume(self) -> None:
        """Ask again: our connection is back."""
        self.timers.restart(now_s=time.monotonic())
        self._ask_again()

    def note_return(self) -> None:
        """Ask again: the device has found its connection again."""
        if self.timers.note_return(self.device, now_s=time.monotonic()):
            self._ask_again()

    def note_sign(self) -> None:
        """Take note that the device is at it: its patience counts from now."""
        self.timers.note_part(self.device, now_s=time.monotonic())

    def allow_anew(self, allowance: Allowance) -> None:
        """Begin the clock anew: there is more to do than was known."""
        self.timers.allow_anew(self.device, allowance, now_s=time.monotonic())

    async def next(self) -> AnyReply | None:
        """Wait for a reply; None if it is time to ask (again).

        DeviceGoneError if the device is lost, LateError if its time is over.
        """
        while True:
            if self._is_due:
                self._is_due = False
                return None
            if not self._replies.empty():
                return self._replies.get_nowait()
            if self._lost:
                raise DeviceGoneError(self._lost)
            await self._wait()

    async def _wait(self) -> None:
        """Wait until something has come, or is due."""
        wake_s = self.timers.wake_s([self.device])
        self._changed.clear()
        try:
            async with asyncio.timeout(max(wake_s - time.monotonic(), 0.0)):
                await self._changed.wait()
        except TimeoutError:
            if not self._replies.empty():
                return  # It came just now.
            now_s = time.monotonic()
            if self.timers.late([self.device], now_s=now_s):
                waited_s = self.timers.waited_s(self.device, now_s=now_s)
                raise LateError(self.request.kind, waited_s) from None
            self._is_due = bool(self.timers.overdue([self.device], now_s=now_s))

    def _ask_again(self) -> None:
        self._is_due = True
        self._changed.set()


def is_answer(request: Request, reply: AnyReply) -> bool:
    """Whether a reply is just what was asked for."""
    match request, reply:
        case Assignment(), Ready():
            return reply.run == request.run
        case Join(), Joined():
            return place_of(reply) == place_of(request)
        case MeasureLink(), LinkMeasured():
            return reply.probe == request.probe
    return False


def is_at_it(assignment: Assignment, reply: AnyReply) -> bool:
    """Whether a device says that its answer will come."""
    return isinstance(reply, Preparing) and reply.run == assignment.run


def lacks_graphs(join: Join, reply: AnyReply) -> bool:
    """Whether a device asks for just the graphs that it was offered."""
    if not isinstance(reply, NeedGraphs) or join.graphs is None:
        return False
    return place_of(reply) == place_of(join) and reply.digest == join.graphs.digest


def place_of(message: Join | Joined | NeedGraphs) -> tuple[int, int, int]:
    """Which turn a message belongs to."""
    return (message.run, message.round, message.cluster)
