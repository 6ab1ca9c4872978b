"""The answers of a turn in micro-batches: of each device as they come, whatever the others do."""

import asyncio
from collections import deque
from dataclasses import dataclass

from runtime.protocol.coordinator_events import FrameRequest
from runtime.wire.frames import Frame


@dataclass(frozen=True)
class AnswerTaken:
    """A device's answer was whole."""

    device: str
    took_s: float | None
    """None where that tells nothing of the device."""
    at_s: float


class TurnAnswers:
    """Keeps what has come until somebody takes it; keeps the contract of `requests.Awaited`."""

    def __init__(self) -> None:
        self.outstanding: dict[str, FrameRequest] = {}
        """By device, what has not been answered."""
        self.frames: deque[tuple[str, Frame]] = deque()
        self.whole: deque[AnswerTaken] = deque()
        self.gone: dict[str, tuple[str, float | None]] = {}
        """Device id to why it is given up, and how long it was waited for if it was late."""
        self._news = asyncio.Event()

    def part(self, device: str, frame: Frame) -> None:
        """Take one micro-batch of an answer that is not whole."""
        self.frames.append((device, frame))
        self._news.set()

    def answer(self, device: str, frame: Frame, *, took_s: float | None, now_s: float) -> None:
        """Take the frame that makes an answer whole."""
        self.outstanding.pop(device, None)
        self.whole.append(AnswerTaken(device, took_s, now_s))
        self.part(device, frame)

    def give_up(self, device: str, reason: str, *, waited_s: float | None) -> None:
        """Go on without a device."""
        self.outstanding.pop(device, None)
        self.gone[device] = (reason, waited_s)
        self._news.set()

    async def until_news(self) -> None:
        """Wait until something has come since the last time, or somebody is gone."""
        await self._news.wait()
        self._news.clear()

    def wake(self) -> None:
        """Have whoever waits look again."""
        self._news.set()
