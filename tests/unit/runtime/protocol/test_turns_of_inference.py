"""Whose turn it is at the server half: few at once, in turn, and the same answer to a repeat."""

from collections import Counter

import numpy as np

from runtime.protocol.inference import MOVING_S, Command, Forget, InferenceTurns, Repeat, Send, Wait
from runtime.wire.frames import StepId


def _step(batch: int) -> StepId:
    return StepId(7, batch, 0, 0)


def _turns(*, at_once: int = 1) -> InferenceTurns:
    return InferenceTurns(most_at_once=at_once, most_waiting=10)


def _ask(turns: InferenceTurns, device: str, step: StepId, *, now_s: float = 0.0) -> list[Command]:
    return turns.ask(device, step, patience_s=5.0, now_s=now_s)


def _serve(turns: InferenceTurns, device: str, batch: int, *, now_s: float = 0.0) -> list[Command]:
    turns.arrived(device, _step(batch))
    return turns.computed(device, _step(batch), is_kept=True, now_s=now_s)


def test_devices_that_ask_at_once_are_served_in_turn() -> None:
    turns = _turns()
    assert _ask(turns, "a", _step(1)) == [Send("a", _step(1))]
    assert _ask(turns, "b", _step(1)) == [Wait("b", _step(1), 0)]
    assert _ask(turns, "c", _step(1)) == [Wait("c", _step(1), 1)]
    assert _serve(turns, "a", 1) == [Send("b", _step(1))]
    assert _ask(turns, "a", _step(2)) == [Wait("a", _step(2), 1)]
    assert _serve(turns, "b", 1) == [Send("c", _step(1))]


def test_a_repeat_gets_the_same_answer() -> None:
    turns = _turns()
    for _ in range(2):
        assert _ask(turns, "a", _step(1)) == [Send("a", _step(1))]
    _ask(turns, "b", _step(1))
    assert _ask(turns, "b", _step(1)) == [Wait("b", _step(1), 0)]
    turns.arrived("a", _step(1))
    assert _ask(turns, "a", _step(1)) == []
    turns.computed("a", _step(1), is_kept=True, now_s=0)
    assert _ask(turns, "a", _step(1)) == [Repeat("a", _step(1))]
    turns.dropped("a")
    assert _ask(turns, "a", _step(1)) == [Wait("a", _step(1), 0)]


def test_a_batch_that_is_given_up_for_another_takes_no_second_turn() -> None:
    turns = _turns()
    _ask(turns, "a", _step(1))
    assert _ask(turns, "a", _step(2)) == [Forget("a"), Send("a", _step(2))]
    turns.arrived("a", _step(2))
    assert _ask(turns, "a", _step(3)) == [Wait("a", _step(3), 0)]
    assert turns.computed("a", _step(2), is_kept=True, now_s=0) == [Send("a", _step(3))]


def test_who_is_told_to_send_and_does_not_loses_the_turn() -> None:
    turns = _turns()
    _ask(turns, "a", _step(1))
    _ask(turns, "b", _step(1))
    assert turns.tick(now_s=4.9) == []
    assert turns.tick(now_s=5.0) == [Forget("a"), Send("b", _step(1))]
    assert turns.expected("a") is None


def test_whatever_devices_do_few_are_in_flight_and_all_are_served_as_often() -> None:
    rng, turns, sending, served = (
        np.random.default_rng(0),
        _turns(at_once=3),
        set[str](),
        Counter[str](),
    )
    batches = dict.fromkeys("abcdefg", 1)
    for _ in range(2000):
        commands = []
        for device in rng.permutation(sorted(batches))[:3]:
            commands += _ask(turns, str(device), _step(batches[device]))
        sending |= {each.device for each in commands if isinstance(each, Send)}
        assert len(sending) <= 3
        device = min(sending)
        more = _serve(turns, device, batches[device])
        served[device] += 1
        batches[device] += 1
        sending = sending - {device} | {each.device for each in more if isinstance(each, Send)}
    assert max(served.values()) - min(served.values()) <= max(served.values()) // 10


def test_what_is_on_its_way_is_not_sent_again() -> None:
    turns = _turns()
    _ask(turns, "a", _step(1))
    turns.moved("a", now_s=1.0)
    assert _ask(turns, "a", _step(1), now_s=2.0) == [Wait("a", _step(1), 0)]
    assert _ask(turns, "a", _step(1), now_s=1.0 + MOVING_S) == [Send("a", _step(1))]
