"""The clock of one answer that is awaited: when to ask again, and when it is late.

Pure: the present time is an argument, in seconds of whatever clock the caller keeps.
"""

from dataclasses import dataclass
from math import inf

FIRST_REPEAT_S = 3.0
"""After what was expected, for a request that may have been lost; the pauses grow from there."""
GROWTH = 1.5
SIGN_FRACTION = 0.25
"""Of its margin: who has shown that it is at its answer is asked again after that, at most."""
GRACE_S = 3.0
"""How long a device whose connection broke may take to come back before it counts as lost."""
RETURN_S = 15.0
"""How long devices may take to find a broker that is back: their longest pause, and some."""
MOST_MARGINS = 10
"""For an answer whose parts arrive: then it is late all the same."""
MAX_RETURNS = 3
"""How often a device that lost its connection is given its time anew, for one answer."""


@dataclass(frozen=True)
class Allowance:
    """How long one answer may take."""

    expected_s: float
    margin_s: float
    is_learned: bool
    """Whether the device has given such an answer before; if not, every part of it that arrives
    gives it the margin anew, up to `latest_s`."""
    word_s: float = inf
    """Seconds after the request up to which the device's word that it is at it does so too."""
    transfer_s: float = inf
    """Seconds from the first part of a frame within which all of it is there, if the device's link
    is what it was measured at; only where `is_learned` is false."""

    @property
    def deadline_s(self) -> float:
        """Seconds after the request at which the device is late."""
        return self.expected_s + self.margin_s

    @property
    def latest_s(self) -> float:
        """Seconds after the request at which it is late, however many parts trickle in."""
        return self.expected_s + MOST_MARGINS * self.margin_s


class AnswerTimer:
    """One answer's clock; it stands while we have no connection."""

    def __init__(self, allowance: Allowance, *, now_s: float) -> None:
        self.is_undisturbed = True
        """Whether it has run all along, so that it shows how long the device takes."""
        self.is_away = False
        """Whether the device has not been heard of since our own connection broke."""
        self.is_paused = False
        self._num_returns = 0
        self._allowance = allowance
        self._asked_s = self._deadline_s = self._repeat_s = self._pause_s = 0.0
        self._latest_s = self._word_s = 0.0
        self._due_s: dict[int, float] = {}
        """By micro-batch, when the rest of a frame has to be there whose first part is."""
        self._begin(now_s)

    @property
    def expected_s(self) -> float:
        """How long the answer was expected to take."""
        return self._allowance.expected_s

    def pause(self) -> None:
        """Stand: our own connection is down, and nobody can be heard."""
        self.is_paused, self.is_undisturbed = True, False

    def restart(self, *, now_s: float) -> None:
        """Begin anew: our connection is back, the device's may take a while."""
        self.is_paused, self.is_away, self.is_undisturbed = False, True, False
        self._begin(now_s)
        self._deadline_s += RETURN_S

    def note_return(self, *, now_s: float) -> bool:
        """Begin anew for a device that is back; False if that was too often."""
        if not self.is_away and self._num_returns >= MAX_RETURNS:
            return False
        self._num_returns += not self.is_away
        self.is_away = self.is_undisturbed = False
        self._begin(now_s)
        return True

    def note_sign(self, *, now_s: float, is_word: bool = False) -> None:
        """Take note that the device is at it, so that it is not asked again meanwhile.

        `is_word` where it only says so, and nothing shows it.
        """
        if not self._allowance.is_learned:
            self._pause_s = min(self._pause_s, SIGN_FRACTION * self._allowance.margin_s)
            latest_s = min(self._latest_s, self._word_s) if is_word else self._latest_s
            renewed_s = min(now_s + self._allowance.margin_s, latest_s)
            self._deadline_s = min(max(self._deadline_s, renewed_s), *self._due_s.values(), inf)
        self._repeat_s = max(self._repeat_s, now_s + self._pause_s)

    def note_part(self, micro_batch: int, *, now_s: float) -> None:
        """Take note of a part of a frame: with its first the clock of its transfer begins."""
        self._due_s.setdefault(micro_batch, now_s + self._allowance.transfer_s)
        self.note_sign(now_s=now_s)

    def note_whole(self, micro_batch: int, *, now_s: float) -> None:
        """Take note that a frame of the answer is whole; others are to come."""
        self._due_s.pop(micro_batch, None)
        self.note_sign(now_s=now_s)

    def allow_anew(self, allowance: Allowance, *, now_s: float) -> None:
        """Begin anew: there is more to do than was known."""
        self._allowance, self.is_undisturbed = allowance, False
        self._begin(now_s)

    def next_timeout(self) -> float:
        """When something is due; never while it stands."""
        return inf if self.is_paused else min(self._deadline_s, self._repeat_s)

    def is_late(self, *, now_s: float) -> bool:
        """Whether the time is over."""
        return not self.is_paused and self._deadline_s <= now_s

    def is_overdue(self, *, now_s: float) -> bool:
        """Whether to ask again now; if so, the next pause is longer."""
        if self.is_paused or self._repeat_s > now_s:
            return False
        self._pause_s *= GROWTH
        self._repeat_s = now_s + self._pause_s
        return True

    def waited_s(self, *, now_s: float) -> float:
        """How long the answer was waited for since it was asked for, or the time begun anew."""
        return now_s - self._asked_s

    def _begin(self, now_s: float) -> None:
        self._asked_s, self._pause_s = now_s, FIRST_REPEAT_S
        self._deadline_s = now_s + self._allowance.deadline_s
        self._latest_s = now_s + self._allowance.latest_s
        self._word_s = now_s + self._allowance.word_s
        self._repeat_s = now_s + self._allowance.expected_s + FIRST_REPEAT_S
        self._due_s.clear()
