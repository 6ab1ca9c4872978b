"""Answers that are outstanding: those awaited, and those of devices that were late."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from edge_coordinator.devices.link_measurement import LinkEcho
from edge_coordinator.devices.requests import Exchange, Inquiry, Request
from runtime.protocol.events import DeviceLost
from runtime.wire.commands import AnyReply, LinkMeasured, MeasureLink
from runtime.wire.frames import Chunk, FrameKind, StepId


class Outstanding:
    """Answers that are awaited now."""

    def __init__(self) -> None:
        self.exchange: Exchange | None = None
        self.inquiries: dict[str, Inquiry] = {}
        self.link_inquiries: dict[str, Inquiry] = {}
        """Of devices that measure their links, while they train for all that is known."""
        self.echoes: dict[str, LinkEcho] = {}

    def pause(self) -> None:
        """Give nobody up while our own connection is down."""
        for waiting in self._all():
            waiting.pause()

    def resume(self) -> None:
        """Ask again for all that is missing: our connection is back."""
        for waiting in self._all():
            waiting.resume()

    def note_return(self, device: str) -> None:
        """Ask a device again that has found its connection again."""
        if self.exchange is not None:
            self.exchange.note_return(device)
        for inquiry in self._of(device):
            inquiry.note_return()

    def note_sign(self, device: str) -> None:
        """Ask a device again that says it is there, if it has not since our connection broke."""
        if self.exchange is not None and self.exchange.timers.is_away(device):
            self.exchange.note_return(device)
        for inquiry in self._of(device):
            if inquiry.timers.is_away(device):
                inquiry.note_return()

    def lose(self, device: str, reason: str) -> None:
        """Wait no longer for a device."""
        for inquiry in self._of(device):
            inquiry.lose(reason)
        if self.exchange is not None and device in self.exchange.gathering.missing:
            self.exchange.post(DeviceLost(device, reason))

    def inquiries_like(self, request: Request) -> dict[str, Inquiry]:
        """Where a request's inquiry has its place: a device answers one of each kind at a time."""
        return self.link_inquiries if isinstance(request, MeasureLink) else self.inquiries

    def asked(self, device: str, reply: AnyReply) -> Inquiry | None:
        """Find the inquiry that a reply may belong to."""
        is_of_link = isinstance(reply, LinkMeasured)
        return (self.link_inquiries if is_of_link else self.inquiries).get(device)

    def _of(self, device: str) -> list[Inquiry]:
        both = (self.inquiries.get(device), self.link_inquiries.get(device))
        return [inquiry for inquiry in both if inquiry is not None]

    def _all(self) -> list[Exchange | Inquiry]:
        exchanges = [self.exchange] if self.exchange is not None else []
        return [*exchanges, *self.inquiries.values(), *self.link_inquiries.values()]


@dataclass(frozen=True)
class _LateAnswer:
    kind: FrameKind
    step: StepId
    on_answer: Callable[[], None]
    timer: asyncio.TimerHandle


class LateAnswers:
    """Who owes an answer that nobody waits for any more, until it has come."""

    def __init__(self, on_settled: Callable[[], None]) -> None:
        """`on_settled` hears whenever a device can be asked again."""
        self._on_settled = on_settled
        self._late: dict[str, _LateAnswer] = {}

    @property
    def reasons(self) -> dict[str, str]:
        """Device id to why it is asked for nothing."""
        return {
            device: f"was late, and is at its answer of round {answer.step.round} still"
            for device, answer in sorted(self._late.items())
        }

    def __contains__(self, device: object) -> bool:
        return device in self._late

    def note(
        self,
        device: str,
        kind: FrameKind,
        step: StepId,
        *,
        on_answer: Callable[[], None],
        most_s: float,
    ) -> None:
        """Ask nothing of a device until its answer has come, or for so many seconds."""
        self.settle(device)
        timer = asyncio.get_running_loop().call_later(most_s, self.settle, device)
        self._late[device] = _LateAnswer(kind, step, on_answer, timer)

    def receive(self, device: str, chunk: Chunk) -> None:
        """Take a part of a frame that is not asked for any more; the last one settles it."""
        answer = self._late.get(device)
        if answer is None or (chunk.kind, chunk.step) != (answer.kind, answer.step):
            return
        if chunk.index + 1 == chunk.num_chunks:
            answer.on_answer()
            self.settle(device)

    def settle(self, device: str) -> None:
        """Let a device be asked again."""
        answer = self._late.pop(device, None)
        if answer is not None:
            answer.timer.cancel()
            self._on_settled()
