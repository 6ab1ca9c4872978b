"""One gathering under way: events in, requests repeated, the gathered answers out."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from edge_coordinator.planning.vigil import Vigil
from runtime.protocol.events import DeviceLost, FrameArrived, Gathered, GatheringEvent, Overdue
from runtime.protocol.gathering import Gathering

AskAgainFunction = Callable[[str], Awaitable[None]]


class Exchange:
    """Gathers one answer of each device, or does without those that are lost or late."""

    def __init__(
        self, gathering: Gathering, ask_again: AskAgainFunction, *, vigil: Vigil, asked_at_s: float
    ) -> None:
        self.gathering = gathering
        self.vigil = vigil
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
            if self.vigil.is_undisturbed(event.device):
                self.took_s[event.device] = now_s - self.asked_at_s
        self._events.put_nowait(event)

    def note_part(self, device: str) -> None:
        """Take note that part of an answer came."""
        self.vigil.note_part(device, now_s=time.monotonic())

    def pause(self) -> None:
        """Give nobody up while our own connection is down."""
        self.vigil.pause()
        self._wake_s = None

    def resume(self) -> None:
        """Ask everyone again that is missing: our connection is back."""
        self.vigil.restart(now_s=time.monotonic())
        self._wake_s = None
        for device in self.gathering.missing:
            self.post(Overdue(device))

    def note_return(self, device: str) -> None:
        """Ask a device again that has found its connection again."""
        if self.waits_for(device) and self.vigil.note_return(device, now_s=time.monotonic()):
            self._wake_s = None
            self.post(Overdue(device))

    async def gathered(self) -> Gathered:
        """Wait until every device has answered, is lost, or is late."""
        while True:
            if self._wake_s is None:
                self._wake_s = self.vigil.wake_s(self._unanswered())
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
        late = self.vigil.late(waiting, now_s=now_s)
        self.late |= {device: self.vigil.waited_s(device, now_s=now_s) for device in late}
        overdue = self.vigil.overdue(waiting, now_s=now_s)
        return [
            *(DeviceLost(device, self._why_late(device)) for device in late),
            *(Overdue(device) for device in overdue if device not in late),
        ]

    def _unanswered(self) -> list[str]:
        """Whose answers have not come; one that has may still wait to be handled."""
        return [device for device in self.gathering.missing if device not in self.answered_at_s]

    def _why_late(self, device: str) -> str:
        expected_s = self.vigil.expected_s(device)
        expected = f"; {expected_s:.3g} s were expected" if expected_s else ""
        return f"gave no answer within {self.late[device]:.3g} s{expected}"

    async def _handle(self, event: GatheringEvent) -> Gathered | None:
        for command in self.gathering.handle(event):
            if isinstance(command, Gathered):
                return command
            if self.waits_for(command.device):  # Else its answer waits to be handled.
                await self._ask_again(command.device)
        return None
