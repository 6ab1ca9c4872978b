"""How long a device may take over an answer: what is expected, and how far off that has been.

The deadline of an answer is the expected seconds plus a margin: a multiple of the learned
deviation, and never less than a floor, so that a busy machine drops no healthy device. Where a
plan predicts seconds, those are expected; else what the device itself usually took. Mean and
deviation are smoothed as TCP smooths its round-trip times (Jacobson and Karels; RFC 6298).
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf

from edge_coordinator.devices.deadlines import Answer, Question, Usual
from profiles.units import BITS_PER_BYTE
from runtime.protocol.coordinator_events import Deliver, FrameRequest
from runtime.protocol.pending import SLOW_BYTES_PER_S
from runtime.protocol.timers import Allowance
from runtime.wire.frames import body_bytes, may_be_shorter

NUM_DEVIATIONS = 4.0
LEAST_RELATIVE_DEVIATION = 0.25
"""Of what is expected: so nobody is late before twice the expected seconds."""
SMOOTHING = 0.25
MOST_TRANSFERS = 2.0
"""A frame may take so many times what it takes on the measured link that all share."""
MOST_PATIENCES = 5.0
MOST_TIMES = 10.0
"""What a plan predicts rests on what devices say of themselves: it is waited for no longer than so
many patiences, or so many times the longest answer that the device has really given."""


class AnswerTimes:
    """What each device's answers took, and so how long the next may take."""

    def __init__(self, *, patience_s: float, least_margin_s: float) -> None:
        """`patience_s` is the margin of an answer that the device has never given before."""
        self._patience_s = patience_s
        self._least_margin_s = least_margin_s
        self.usual: dict[str, dict[Answer, Usual]] = {}
        """By device; all that has been learned."""
        self._longest_s: dict[str, float] = {}
        """By device, of the answers that really came."""
        self._slowest_s: dict[Answer, float] = {}
        """Of all devices' answers that really came: ten times that long, a word is good for."""
        self._shown_bps: dict[str, float] = {}
        """By device, the most that an answer of it has come at, computing included."""

    def allow(self, question: Question, devices: Iterable[str]) -> dict[str, Allowance]:
        """Say how long each device may take."""
        return {device: self._allow_one(device, question) for device in devices}

    def allow_frame(
        self, question: Question, device: str, request: FrameRequest, *, up_bps: float | None
    ) -> Allowance:
        """Say how long a device may take, and what the parts of its answer are worth.

        `up_bps` is what the device says that its link was measured at. It counts for no less than
        its answers have shown, and for no longer than what a plan predicts of it.
        """
        margin_s = min(self._patience_s, self._least_margin_s)
        if up_bps is None:
            margin_s, up_bps = self._patience_s, SLOW_BYTES_PER_S * BITS_PER_BYTE
        up_bps = max(up_bps, self._shown_bps.get(device, 0.0))
        bits = max(map(body_bytes, request.answers)) * BITS_PER_BYTE
        sending_s = MOST_TRANSFERS * question.num_devices * bits / up_bps
        transfer_s = margin_s + self._believed_s(device, sending_s)
        return replace(self._allow_one(device, question), transfer_s=transfer_s)

    def note_rate(self, device: str, delivered: Deliver) -> None:
        """Take in what a device's link carries at least, by how soon an answer was there."""
        what, took_s = delivered.what, delivered.took_s
        if isinstance(what, FrameRequest) and took_s and not any(map(may_be_shorter, what.answers)):
            shown_bps = sum(map(body_bytes, what.answers)) * BITS_PER_BYTE / took_s
            self._shown_bps[device] = max(self._shown_bps.get(device, 0.0), shown_bps)

    def learn(
        self, question: Question, *, seconds: Mapping[str, float], waited_s: Mapping[str, float]
    ) -> None:
        """Take in what the answers took, and how long those were waited for that did not come."""
        for device, took_s in seconds.items():
            self._learn_one(device, question.answer, took_s, self._predicted_s(device, question))
        for device, late_s in waited_s.items():
            self._learn_late(device, question.answer, late_s, self._predicted_s(device, question))

    def _allow_one(self, device: str, question: Question) -> Allowance:
        answer, predicted_s = question.answer, self._predicted_s(device, question)
        usual = self.usual.get(device, {}).get(answer)
        if usual is None:
            shown_s = MOST_TIMES * self._slowest_s[answer] if answer in self._slowest_s else inf
            return Allowance(predicted_s or 0.0, self._patience_s, is_learned=False, word_s=shown_s)
        expected_s = usual.seconds if predicted_s is None else predicted_s
        deviation_s = max(usual.deviation_s, LEAST_RELATIVE_DEVIATION * expected_s)
        margin_s = max(self._least_margin_s, NUM_DEVIATIONS * deviation_s)
        if answer is Answer.JOINED:  # No training in it: a long wait would only be for the dead.
            margin_s = max(min(margin_s, self._patience_s - expected_s), self._least_margin_s)
        return Allowance(expected_s, margin_s, is_learned=True)

    def _predicted_s(self, device: str, question: Question) -> float | None:
        predicted_s = question.predicted_s.get(device)
        return None if predicted_s is None else self._believed_s(device, predicted_s)

    def _believed_s(self, device: str, claimed_s: float) -> float:
        """Believe what rests on a device's own word as far as measurements go."""
        shown_s = MOST_TIMES * self._longest_s.get(device, 0.0)
        return min(claimed_s, max(MOST_PATIENCES * self._patience_s, shown_s))

    def _learn_one(
        self, device: str, answer: Answer, seconds: float, predicted_s: float | None
    ) -> None:
        self._slowest_s[answer] = max(self._slowest_s.get(answer, 0.0), seconds)
        self._longest_s[device] = max(self._longest_s.get(device, 0.0), seconds)
        answers = self.usual.setdefault(device, {})
        before = answers.get(answer)
        if before is None:
            answers[answer] = Usual(seconds, seconds / 2)
            return
        expected_s = before.seconds if predicted_s is None else predicted_s
        answers[answer] = Usual(
            _towards(before.seconds, seconds),
            _towards(before.deviation_s, abs(seconds - expected_s)),
        )

    def _learn_late(
        self, device: str, answer: Answer, waited_s: float, predicted_s: float | None
    ) -> None:
        """Take in that an answer takes longer than this: how much longer, nobody knows.

        The next deadline is at least twice as far beyond what was expected. The device's other
        answers are expected to take longer in proportion, but not by more than was waited.
        """
        answers = self.usual.setdefault(device, {})
        before = answers.get(answer, Usual(predicted_s or 0.0, 0.0))
        expected_s = before.seconds if predicted_s is None else predicted_s
        deviation_s = max(2 * (waited_s - expected_s) / NUM_DEVIATIONS, 0.0)
        slower_s = max(before.seconds, waited_s)
        if answer is Answer.JOINED:
            slower_s = before.seconds  # Who does not join is busy or dead, not slow at joining.
        else:
            for other, usual in answers.items():
                if other is not Answer.JOINED:
                    answers[other] = _slower(usual, waited_s, expected_s, deviation_s)
        answers[answer] = Usual(slower_s, max(before.deviation_s, deviation_s))


def _slower(usual: Usual, waited_s: float, expected_s: float, deviation_s: float) -> Usual:
    factor = waited_s / expected_s if expected_s > 0 else 1.0
    slower_s = min(usual.seconds * max(factor, 1.0), usual.seconds + waited_s)
    return Usual(slower_s, max(usual.deviation_s, deviation_s))


def _towards(before: float, now: float) -> float:
    return before + SMOOTHING * (now - before)
