"""How long a device may take over an answer, by what is expected and what it took before."""

from math import inf

import pytest

from edge_coordinator.devices.answer_times import AnswerTimes
from edge_coordinator.devices.deadlines import Answer, Question, Usual
from edge_coordinator.devices.stragglers import LONGEST_REST, Stragglers
from runtime.protocol.timers import (
    FIRST_REPEAT_S,
    GROWTH,
    MAX_RETURNS,
    MOST_MARGINS,
    RETURN_S,
    Allowance,
    AnswerTimer,
)

FIRST, NEXT = Question(Answer.FIRST, {}), Question(Answer.NEXT, {})
PLANNED = Question(Answer.FIRST, {"a": 2.0})


def _times() -> AnswerTimes:
    return AnswerTimes(patience_s=60, least_margin_s=15)


def _answered(times: AnswerTimes, question: Question, *seconds: float) -> AnswerTimes:
    for took_s in seconds:
        times.learn(question, seconds={"a": took_s}, waited_s={})
    return times


def _late(times: AnswerTimes, question: Question) -> float:
    """Be late; how long that was waited for."""
    waited_s = _deadline_s(times, question)
    times.learn(question, seconds={}, waited_s={"a": waited_s})
    return waited_s


def _deadline_s(times: AnswerTimes, question: Question) -> float:
    return times.allow(question, ["a"])["a"].deadline_s


def test_who_has_never_answered_gets_the_patience_beyond_what_is_predicted() -> None:
    assert _times().allow(FIRST, ["a"])["a"] == Allowance(0.0, 60.0, is_learned=False)
    assert _times().allow(PLANNED, ["a"])["a"] == Allowance(2.0, 60.0, is_learned=False)


def test_a_deadline_is_what_is_expected_and_at_least_the_floor_beyond() -> None:
    times = _answered(_times(), FIRST, *[0.1] * 9)
    assert _deadline_s(times, FIRST) == pytest.approx(15.1)
    assert _deadline_s(times, PLANNED) == pytest.approx(17.0)


def test_a_device_that_varies_gets_four_deviations_and_a_steady_one_twice_its_time() -> None:
    times = _answered(_times(), FIRST, *[40.0] * 40)
    assert _deadline_s(times, FIRST) == pytest.approx(80.0, rel=0.01)
    _answered(times, FIRST, *[20.0, 60.0] * 20)
    usual = times.usual["a"][Answer.FIRST]
    assert usual.deviation_s > 15
    assert _deadline_s(times, FIRST) == pytest.approx(usual.seconds + 4 * usual.deviation_s)


def test_what_counts_of_a_planned_answer_is_how_far_the_prediction_was_off() -> None:
    times = _answered(_times(), PLANNED, *[22.0] * 40)
    assert _deadline_s(times, PLANNED) == pytest.approx(2 + 4 * 20, rel=0.01)


def test_ten_times_slower_is_in_time_after_a_few_rounds_whatever_it_does_first() -> None:
    times = _answered(_answered(_times(), FIRST, *[10.0] * 20), NEXT, *[12.0] * 20)
    num_late = 0
    for question, takes_s in ((FIRST, 100.0), (NEXT, 120.0)):
        while _deadline_s(times, question) < takes_s:
            _late(times, question)
            num_late += 1
        _answered(times, question, takes_s)
    assert num_late <= 3


def test_a_device_that_hangs_does_not_drag_its_other_answers_along_without_end() -> None:
    times = _answered(_answered(_times(), FIRST, *[0.1] * 9), NEXT, *[5.0] * 9)
    _late(times, FIRST)
    assert _deadline_s(times, NEXT) < 60


def test_joining_is_never_waited_for_longer_than_the_patience() -> None:
    joined = Question(Answer.JOINED, {})
    times = _answered(_times(), joined, 0.01)
    waited_s = [_late(times, joined) for _ in range(6)]
    assert waited_s[0] == pytest.approx(15.0, abs=0.1)
    assert waited_s[-1] == max(waited_s) == pytest.approx(60.0)


def test_nobody_is_waited_for_without_end_for_what_a_plan_says() -> None:
    boundless = Question(Answer.FIRST, {"a": 1e300})
    assert _times().allow(boundless, ["a"])["a"] == Allowance(300.0, 60.0, is_learned=False)
    times = _answered(_times(), boundless, 1.0, 1.0)
    assert _deadline_s(times, boundless) < 11 * 60
    assert _late(times, boundless) + _deadline_s(times, boundless) < 30 * 60
    shown = _answered(_times(), FIRST, 200.0)
    assert shown.allow(Question(Answer.NEXT, {"a": 1500.0}), ["a"])["a"].expected_s == 1500.0


def test_who_really_takes_longer_than_a_plan_may_say_is_in_time_after_a_few_rounds() -> None:
    times, slow = _times(), Question(Answer.FIRST, {"a": 7200.0})
    num_late = 0
    while _deadline_s(times, slow) < 7200:
        _late(times, slow)
        num_late += 1
    assert num_late <= 8


def test_one_device_teaches_nothing_of_another() -> None:
    times = _answered(_times(), FIRST, 1.0)
    assert times.allow(FIRST, ["b"])["b"].margin_s == 60
    assert times.usual == {"a": {Answer.FIRST: Usual(1.0, 0.5)}}


# The clock of one answer


def _timer(*, is_learned: bool = True) -> AnswerTimer:
    return AnswerTimer(Allowance(2.0, 15.0, is_learned=is_learned), now_s=100.0)


def test_it_is_time_to_ask_again_after_growing_pauses_and_then_the_device_is_late() -> None:
    timer, asked, now_s = _timer(), [], 100.0
    while not timer.is_late(now_s=now_s):
        assert timer.next_timeout() > now_s
        now_s = timer.next_timeout()
        asked += [now_s] if timer.is_overdue(now_s=now_s) else []
    first, second = 102 + FIRST_REPEAT_S, 102 + FIRST_REPEAT_S * (1 + GROWTH)
    assert asked == [first, second, second + FIRST_REPEAT_S * GROWTH**2]
    assert (now_s, timer.waited_s(now_s=now_s)) == (117.0, 17.0)


def test_parts_that_trickle_in_renew_the_patience_but_not_for_ever() -> None:
    timer, now_s = _timer(is_learned=False), 100.0
    while not timer.is_late(now_s=now_s):
        timer.note_sign(now_s=now_s)
        now_s += 1.0
    assert now_s == 100.0 + 2.0 + MOST_MARGINS * 15.0


def test_a_word_is_good_for_as_long_as_the_answers_of_others_make_likely() -> None:
    times = AnswerTimes(patience_s=15, least_margin_s=5)
    assert times.allow(FIRST, ["b"])["b"].word_s == inf
    _answered(times, FIRST, 4.0, 2.0)
    allowance = times.allow(FIRST, ["b"])["b"]
    for is_word, until_s in ((True, 10 * 4.0), (False, MOST_MARGINS * 15.0)):
        timer, now_s = AnswerTimer(allowance, now_s=100.0), 100.0
        while not timer.is_late(now_s=now_s):
            timer.note_sign(now_s=now_s, is_word=is_word)
            now_s += 1.0
        assert now_s == 100.0 + until_s


def test_signs_of_a_device_that_is_known_do_not_move_its_deadline() -> None:
    timer = _timer()
    timer.note_sign(now_s=116.0)
    assert timer.is_late(now_s=117.0)
    assert not timer.is_overdue(now_s=117.0)


def test_nobody_is_late_while_we_have_no_connection_and_all_begin_anew_after_it() -> None:
    timer = _timer()
    timer.pause()
    assert not timer.is_late(now_s=500.0)
    assert not timer.is_overdue(now_s=500.0)
    assert timer.next_timeout() == inf
    timer.restart(now_s=500.0)
    assert not timer.is_late(now_s=516.0 + RETURN_S)
    assert timer.is_late(now_s=517.0 + RETURN_S)
    assert timer.note_return(now_s=603.0)
    assert timer.is_late(now_s=620.0)
    assert not timer.is_undisturbed


def test_a_device_that_flaps_is_not_waited_for_without_end() -> None:
    timer = _timer()
    assert [timer.note_return(now_s=110.0) for _ in range(9)].count(True) == MAX_RETURNS


# Who is late again and again


def test_a_late_device_is_back_in_the_next_round_and_rests_only_after_three() -> None:
    stragglers = Stragglers(0, {})
    for _ in range(2):
        stragglers.note(present="abc", late="a")
        assert stragglers.resting("abc") == {}
    stragglers.note(present="abc", late="a")
    why = "was late 3 times in a row and rests; rounds to go: 1"
    assert stragglers.resting("abc") == {"a": why}
    stragglers.note(present="bc", late="")
    assert stragglers.resting("abc") == {}


def test_rests_grow_up_to_a_limit_and_end_with_the_first_answer() -> None:
    stragglers = Stragglers(0, {})
    rests: list[int] = []
    while len(rests) < 9:
        stragglers.note(present="ab", late="a")
        rests.append(0)
        while stragglers.resting("ab"):
            stragglers.note(present="b", late="")
            rests[-1] += 1
    assert rests == [0, 0, 1, 2, 4, 8, LONGEST_REST, LONGEST_REST, LONGEST_REST]
    stragglers.note(present="ab", late="")
    stragglers.note(present="ab", late="a")
    assert stragglers.resting("ab") == {}


def test_nobody_rests_if_all_would() -> None:
    stragglers = Stragglers(0, {})
    for _ in range(3):
        stragglers.note(present="ab", late="ab")
    assert stragglers.resting("ab") == {}
    assert list(stragglers.resting("abc")) == ["a", "b"]
