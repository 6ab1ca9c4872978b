"""Whose turn it is, when several devices want the server half: first come, first served.

A device has one request at a time, and is at the end again after each: so whoever asks often waits
as often. A few are told to send at once, so that what is in flight is bounded, whatever the
devices do; who was told and sends nothing loses the turn. What was lost is asked again: a request
that is known gets the same answer.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass

from runtime.wire.frames import StepId


@dataclass(frozen=True)
class Wait:
    """Tell a device how many come first."""

    device: str
    step: StepId
    num_before: int


@dataclass(frozen=True)
class Send:
    """Tell a device to send its smashed data."""

    device: str
    step: StepId


@dataclass(frozen=True)
class Repeat:
    """Send a device the outputs that it has been sent already."""

    device: str
    step: StepId


@dataclass(frozen=True)
class Forget:
    """Let go of what has come of a device's smashed data: its turn is over."""

    device: str


Command = Wait | Send | Repeat | Forget


MOVING_S = 5.0
"""Smashed data of which a chunk came in this time are on their way, and not to be sent again."""


@dataclass
class _Turn:
    """What a device was told to send, until when that is waited for, and when a chunk came last."""

    step: StepId
    until_s: float
    moved_s: float = -math.inf


class InferenceTurns:
    """Gives turns to devices; times are of any clock."""

    def __init__(self, *, most_at_once: int, most_waiting: int) -> None:
        self._most_at_once = most_at_once
        self._most_waiting = most_waiting
        self._waiting: OrderedDict[str, tuple[StepId, float]] = OrderedDict()
        """Device to its batch, and how many seconds its turn will last at most."""
        self._sending: dict[str, _Turn] = {}
        self._computing: dict[str, StepId] = {}
        self._done: dict[str, StepId] = {}

    def expected(self, device: str) -> StepId | None:
        """What a device may send now."""
        turn = self._sending.get(device)
        return turn.step if turn is not None else None

    def knows(self, device: str) -> bool:
        """Whether a device waits, sends, or is computed for."""
        return any(device in own for own in (self._waiting, self._sending, self._computing))

    @property
    def is_full(self) -> bool:
        """Whether no other device can be taken on."""
        return len(self._waiting) >= self._most_waiting

    def ask(self, device: str, step: StepId, *, patience_s: float, now_s: float) -> list[Command]:
        """A device has a batch ready; what it asked for before is given up.

        Its turn lasts `patience_s` at most until the smashed data are there.
        """
        if self._computing.get(device) == step:
            return []
        if self._done.get(device) == step:
            return [Repeat(device, step)]
        turn = self._sending.get(device)
        if turn is not None and turn.step == step:
            is_moving = now_s - turn.moved_s < MOVING_S
            return [Wait(device, step, 0) if is_moving else Send(device, step)]
        commands: list[Command] = []
        if self._sending.pop(device, None) is not None:
            commands.append(Forget(device))
        self._waiting[device] = step, patience_s
        commands += self._next(now_s)
        if device in self._waiting:
            commands.append(Wait(device, step, list(self._waiting).index(device)))
        return commands

    def moved(self, device: str, *, now_s: float) -> None:
        """A chunk of the smashed data of a device has come."""
        self._sending[device].moved_s = now_s

    def arrived(self, device: str, step: StepId) -> None:
        """The smashed data of a device are there, and are computed on."""
        del self._sending[device]
        self._computing[device] = step

    def computed(self, device: str, step: StepId, *, is_kept: bool, now_s: float) -> list[Command]:
        """Its outputs are there; they can be sent again while they are kept."""
        self._computing.pop(device, None)
        if is_kept:
            self._done[device] = step
        return self._next(now_s)

    def dropped(self, device: str) -> None:
        """The outputs of a device are not kept any more."""
        self._done.pop(device, None)

    def tick(self, *, now_s: float) -> list[Command]:
        """Take the turn of whoever was told to send, and has not."""
        late = [device for device, turn in self._sending.items() if now_s >= turn.until_s]
        for device in late:
            del self._sending[device]
        return [*(Forget(device) for device in late), *self._next(now_s)]

    def _next(self, now_s: float) -> list[Command]:
        """Give turns as far as there are any."""
        commands: list[Command] = []
        for device in list(self._waiting):
            if len(self._sending) + len(self._computing) >= self._most_at_once:
                break
            if device in self._computing:  # Of a batch that it has given up.
                continue
            step, patience_s = self._waiting.pop(device)
            self._sending[device] = _Turn(step, now_s + patience_s)
            commands.append(Send(device, step))
        return commands
