"""What is asked of devices, as who asks it sees it: an answer of each, or why there is none."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from runtime.errors import EdgeError
from runtime.protocol.coordinator_events import (
    Asked,
    Deliver,
    FrameRequest,
    GiveUp,
    Reply,
    Request,
)
from runtime.protocol.events import DeviceLost, FrameArrived, Gathered
from runtime.protocol.gathering import Gathering
from runtime.wire.commands import Assignment, Join
from runtime.wire.frames import Frame


class DeviceGoneError(EdgeError):
    """A device went away, refused, or did not answer in time."""


class LateError(DeviceGoneError):
    """A device that is there did not answer in time."""

    def __init__(self, reason: str, waited_s: float) -> None:
        super().__init__(reason)
        self.waited_s = waited_s


@dataclass(frozen=True)
class Answered:
    """What a device answered to a control message."""

    reply: Reply
    took_s: float | None
    """None where that tells nothing of the device."""


class Awaited(Protocol):
    """Whoever waits for frames of devices."""

    @property
    def outstanding(self) -> Mapping[str, FrameRequest]:
        """By device, what has not been answered."""
        ...

    def part(self, device: str, frame: Frame) -> None:
        """Take one micro-batch of an answer that is not whole."""
        ...

    def answer(self, device: str, frame: Frame, *, took_s: float | None, now_s: float) -> None:
        """Take a device's answer, or the frame that makes it whole."""
        ...

    def give_up(self, device: str, reason: str, *, waited_s: float | None) -> None:
        """Go on without a device."""
        ...


class Exchange:
    """Gathers one frame of each device, or does without those that are lost or late."""

    def __init__(self, requests: Mapping[str, FrameRequest]) -> None:
        """All requests are alike but for the shapes of their answers."""
        one = next(iter(requests.values()))
        expected = {device: request.specs for device, request in requests.items()}
        self.gathering = Gathering(one.answer_kind, one.answer_step, expected)
        self.requests = dict(requests)
        self.answered_at_s: dict[str, float] = {}
        self.took_s: dict[str, float] = {}
        """Device id to how long its answer took, unless a connection broke meanwhile."""
        self.late: dict[str, float] = {}
        """Device id to how long its answer was waited for in vain."""
        self._gathered: asyncio.Future[Gathered] = asyncio.get_running_loop().create_future()

    @property
    def outstanding(self) -> Mapping[str, FrameRequest]:
        """By device, what has not been answered."""
        return {device: self.requests[device] for device in self.gathering.missing}

    def part(self, device: str, frame: Frame) -> None:
        """Nothing: what is gathered comes in one frame."""

    def answer(self, device: str, frame: Frame, *, took_s: float | None, now_s: float) -> None:
        """Take a device's answer."""
        self.answered_at_s[device] = now_s
        if took_s is not None:
            self.took_s[device] = took_s
        self._take(FrameArrived(device, frame))

    def give_up(self, device: str, reason: str, *, waited_s: float | None) -> None:
        """Go on without a device."""
        if waited_s is not None:
            self.late[device] = waited_s
        self._take(DeviceLost(device, reason))

    async def gathered(self) -> Gathered:
        """Wait until every device has answered, is lost, or is late."""
        return await self._gathered

    def _take(self, event: FrameArrived | DeviceLost) -> None:
        for gathered in self.gathering.handle(event):
            if not self._gathered.done():
                self._gathered.set_result(gathered)


class Replies:
    """Who waits for the answers of devices: to control messages, and to the frames of a cluster."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, type[Asked]], asyncio.Future[Answered]] = {}
        """By device and what is asked: a device that comes back while its turn begins is given the
        job, and is asked to join in vain."""
        self.exchange: Awaited | None = None

    def __len__(self) -> int:
        """How many are waited for."""
        return len(self._waiting)

    def is_awaited(self, device: str) -> bool:
        """Whether a device was asked something that is not about its link."""
        return any((device, asked) in self._waiting for asked in (Assignment, Join))

    def expect(self, device: str, request: Request) -> asyncio.Future[Answered]:
        """Wait for an answer from now on."""
        answered: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._waiting[device, type(request)] = answered
        return answered

    def forget(self, device: str, request: Request, answered: asyncio.Future[Answered]) -> None:
        """Wait for it no longer; somebody else may have asked meanwhile."""
        key = (device, type(request))
        if self._waiting.get(key) is answered:
            del self._waiting[key]

    def deliver(self, device: str, command: Deliver, *, now_s: float) -> None:
        """Hand an answer to whoever waits for it."""
        answer, took_s = command.answer, command.took_s
        if not isinstance(answer, Frame):
            waiting = self._future(device, command.what)
            if waiting is not None:
                waiting.set_result(Answered(answer, took_s))
        elif self.exchange is not None:
            self.exchange.answer(device, answer, took_s=took_s, now_s=now_s)

    def give_up(self, device: str, command: GiveUp) -> None:
        """Tell whoever waits why there is no answer."""
        reason, waited_s = command.reason, command.waited_s
        if isinstance(command.what, FrameRequest):
            if self.exchange is not None:
                self.exchange.give_up(device, reason, waited_s=waited_s)
            return
        waiting = self._future(device, command.what)
        if waiting is not None:
            late = DeviceGoneError(reason) if waited_s is None else LateError(reason, waited_s)
            waiting.set_exception(late)

    def _future(self, device: str, what: Asked) -> asyncio.Future[Answered] | None:
        waiting = self._waiting.get((device, type(what)))
        return None if waiting is None or waiting.done() else waiting
