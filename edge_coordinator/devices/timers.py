"""Watching over answers that are awaited: when to ask again, and who is late.

Pure: the present time is an argument, in seconds of whatever clock the caller keeps.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf

from edge_coordinator.devices.deadlines import Allowance

FIRST_REPEAT_S = 3.0
"""After what was expected, for a request that may have been lost; the pauses grow from there."""
GROWTH = 1.5
SIGN_FRACTION = 0.25
"""Of its margin: who has shown that it is at its answer is asked again after that, at most."""
RETURN_S = 15.0
"""How long devices may take to find a broker that is back: their longest pause, and some."""
MAX_RETURNS = 3
"""How often a device that lost its connection is given its time anew, for one answer."""


@dataclass
class _Timer:
    """One device's clock."""

    asked_s: float
    deadline_s: float
    repeat_s: float
    pause_s: float = FIRST_REPEAT_S


class AnswerTimers:
    """The clocks of one request to several devices; they stand while we have no connection."""

    def __init__(self, allowances: Mapping[str, Allowance], *, now_s: float) -> None:
        self._allowances = dict(allowances)
        self._timers = {device: self._begin(device, now_s) for device in allowances}
        self._is_paused = False
        self._away: set[str] = set()
        """Who has not been heard of since our own connection broke."""
        self._num_returns = dict.fromkeys(allowances, 0)
        self._anew: set[str] = set()
        """Whose clock was begun anew: what they take tells nothing of them."""

    def pause(self) -> None:
        """Let the clocks stand: our own connection is down, and nobody can be heard."""
        self._is_paused = True

    def restart(self, *, now_s: float) -> None:
        """Begin anew for everyone: our connection is back, the devices' may take a while."""
        self._is_paused = False
        self._away = set(self._timers)
        for device in self._timers:
            self._begin_anew(device, now_s)
            self._timers[device].deadline_s += RETURN_S

    def note_return(self, device: str, *, now_s: float) -> bool:
        """Begin anew for a device that is back; False if it has not been away, or too often."""
        if device not in self._away and self._num_returns.get(device, MAX_RETURNS) >= MAX_RETURNS:
            return False
        self._num_returns[device] += device not in self._away
        self._away.discard(device)
        self._begin_anew(device, now_s)
        return True

    def is_away(self, device: str) -> bool:
        """Whether a device has not been heard of since our own connection broke."""
        return device in self._away

    def note_part(self, device: str, *, now_s: float) -> None:
        """Take note that part of an answer came; a request is not repeated meanwhile."""
        timer, allowance = self._timers[device], self._allowances[device]
        if not allowance.is_learned:
            timer.pause_s = min(timer.pause_s, SIGN_FRACTION * allowance.margin_s)
        timer.repeat_s = max(timer.repeat_s, now_s + timer.pause_s)
        if not allowance.is_learned:
            timer.deadline_s = max(timer.deadline_s, now_s + allowance.margin_s)

    def allow_anew(self, device: str, allowance: Allowance, *, now_s: float) -> None:
        """Give a device another allowance, from now on."""
        self._allowances[device] = allowance
        self._begin_anew(device, now_s)

    def wake_s(self, waiting: Iterable[str]) -> float:
        """When something is due next of those whose answers are missing."""
        timers = [self._timers[device] for device in waiting]
        if self._is_paused or not timers:
            return inf
        return min(min(timer.deadline_s, timer.repeat_s) for timer in timers)

    def overdue(self, waiting: Iterable[str], *, now_s: float) -> list[str]:
        """Whom to ask again now."""
        due = [
            device
            for device in waiting
            if not self._is_paused and self._timers[device].repeat_s <= now_s
        ]
        for device in due:
            timer = self._timers[device]
            timer.pause_s *= GROWTH
            timer.repeat_s = now_s + timer.pause_s
        return due

    def late(self, waiting: Iterable[str], *, now_s: float) -> list[str]:
        """Whose time is over."""
        if self._is_paused:
            return []
        return [device for device in waiting if self._timers[device].deadline_s <= now_s]

    def is_undisturbed(self, device: str) -> bool:
        """Whether a device has had one clock all along, so that it shows how long it takes."""
        return device not in self._anew and not self._is_paused

    def waited_s(self, device: str, *, now_s: float) -> float:
        """How long a device has been waited for since it was asked, or given its time anew."""
        return now_s - self._timers[device].asked_s

    def expected_s(self, device: str) -> float:
        """How long its answer was expected to take."""
        return self._allowances[device].expected_s

    def _begin_anew(self, device: str, now_s: float) -> None:
        self._anew.add(device)
        self._timers[device] = self._begin(device, now_s)

    def _begin(self, device: str, now_s: float) -> _Timer:
        allowance = self._allowances[device]
        expected_s = now_s + allowance.expected_s
        return _Timer(now_s, now_s + allowance.deadline_s, expected_s + FIRST_REPEAT_S)
