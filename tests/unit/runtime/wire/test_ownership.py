"""Who stays when two programs want one id: whoever was there, not whoever says it is older."""

from runtime.wire.ownership import PATIENCE_S, RETURN_S, SETTLE_S, STALLED_S, Tenure, Verdict
from tests.turn import STATUS

OLDER = STATUS.model_copy(update={"session": "two", "since_unix_s": 0.0})
NEWER = STATUS.model_copy(update={"session": "two", "since_unix_s": 9.0})
STEP_S = STALLED_S / 4


def _awake(until_s: float) -> Tenure:
    """Claimed at 0, and there all along."""
    tenure = Tenure(now_s=0.0)
    for step in range(int(until_s / STEP_S) + 1):
        tenure.note_alive(step * STEP_S)
    return tenure


def test_who_has_been_there_yields_to_no_status_however_old_it_claims_to_be() -> None:
    tenure = _awake(60.0)
    for seen in (OLDER, NEWER):
        assert tenure.judge(STATUS, seen, retained=False, now_s=60.0) is Verdict.REASSERT
    assert tenure.judge(STATUS, OLDER, retained=True, now_s=60.0) is Verdict.IGNORE


def test_of_two_that_begin_at_the_same_moment_the_older_session_stays() -> None:
    now_s = SETTLE_S / 2
    assert _awake(now_s).judge(STATUS, OLDER, retained=False, now_s=now_s) is Verdict.YIELD
    assert _awake(now_s).judge(STATUS, NEWER, retained=False, now_s=now_s) is Verdict.REASSERT


def test_who_slept_or_lost_its_connection_yields_to_whoever_took_its_place_old_or_new() -> None:
    for seen in (OLDER, NEWER):
        asleep = _awake(60.0)
        woke_s = 60.0 + PATIENCE_S + 1
        assert asleep.judge(STATUS, seen, retained=False, now_s=woke_s) is Verdict.YIELD
        cut_off = _awake(60.0)
        cut_off.note_return(60.0)
        assert cut_off.judge(STATUS, seen, retained=True, now_s=61.0) is Verdict.YIELD


def test_who_is_back_for_a_while_and_met_nobody_is_there_again() -> None:
    tenure = _awake(60.0)
    tenure.note_return(60.0)
    assert tenure.judge(STATUS, STATUS, retained=True, now_s=60.5) is Verdict.IGNORE
    now_s = 60.0
    while now_s < 60.0 + RETURN_S:
        now_s += STEP_S
        tenure.note_alive(now_s)
    assert tenure.judge(STATUS, OLDER, retained=False, now_s=now_s) is Verdict.REASSERT


def test_a_will_that_is_published_for_a_broken_connection_is_answered() -> None:
    tenure = _awake(60.0)
    tenure.note_return(60.0)
    gone = NEWER.model_copy(update={"state": "offline"})
    assert tenure.judge(STATUS, gone, retained=False, now_s=61.0) is Verdict.REASSERT


def test_who_is_there_contradicts_whoever_says_that_this_very_session_is_not() -> None:
    tenure = _awake(60.0)
    gone = STATUS.model_copy(update={"state": "offline"})
    for retained in (True, False):
        assert tenure.judge(STATUS, gone, retained=retained, now_s=60.0) is Verdict.REASSERT
    assert tenure.judge(gone, gone, retained=False, now_s=60.0) is Verdict.IGNORE
