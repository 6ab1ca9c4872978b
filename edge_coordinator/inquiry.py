"""One control message to one device, until it is answered."""

import asyncio
import time

from edge_coordinator.planning.deadline import Allowance
from edge_coordinator.planning.vigil import Vigil
from runtime.errors import EdgeError
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

MAX_WAITING_REPLIES = 16
"""Replies of one device that nobody has looked at yet; more are dropped."""

Request = Assignment | Join | MeasureLink
Reply = Ready | Joined | LinkMeasured


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
        self.vigil = Vigil({device: allowance}, now_s=time.monotonic())
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
        self.vigil.pause()
        self._changed.set()

    def resume(self) -> None:
        """Ask again: our connection is back."""
        self.vigil.restart(now_s=time.monotonic())
        self._ask_again()

    def note_return(self) -> None:
        """Ask again: the device has found its connection again."""
        if self.vigil.note_return(self.device, now_s=time.monotonic()):
            self._ask_again()

    def note_sign(self) -> None:
        """Take note that the device is at it: its patience counts from now."""
        self.vigil.note_part(self.device, now_s=time.monotonic())

    def allow_anew(self, allowance: Allowance) -> None:
        """Begin the clock anew: there is more to do than was known."""
        self.vigil.allow_anew(self.device, allowance, now_s=time.monotonic())

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
        wake_s = self.vigil.wake_s([self.device])
        self._changed.clear()
        try:
            async with asyncio.timeout(max(wake_s - time.monotonic(), 0.0)):
                await self._changed.wait()
        except TimeoutError:
            if not self._replies.empty():
                return  # It came just now.
            now_s = time.monotonic()
            if self.vigil.late([self.device], now_s=now_s):
                waited_s = self.vigil.waited_s(self.device, now_s=now_s)
                raise LateError(self.request.kind, waited_s) from None
            self._is_due = bool(self.vigil.overdue([self.device], now_s=now_s))

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
