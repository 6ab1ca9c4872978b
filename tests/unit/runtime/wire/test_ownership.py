"""Who stays when two programs want one id: whoever was there, not whoever says it is older."""

from runtime.wire.ownership import PATIENCE_S, RETURN_S, SETTLE_S, STALLED_S, Tenure, Verdict
from runtime.wire.published import DeviceStatus
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


def _contradicted(tenure: Tenure, seen: DeviceStatus, *, retained: bool, now_s: float) -> Verdict:
    """What is made of another's status that comes again after our own has gone against it."""
    assert tenure.judge(STATUS, seen, retained=retained, now_s=now_s) is Verdict.REASSERT
    assert tenure.judge(STATUS, seen, retained=False, now_s=now_s) is Verdict.REASSERT
    assert tenure.judge(STATUS, STATUS, retained=False, now_s=now_s) is Verdict.IGNORE
    return tenure.judge(STATUS, seen, retained=False, now_s=now_s)


def test_of_two_that_begin_at_the_same_moment_the_older_session_stays() -> None:
    now_s = SETTLE_S / 2
    for seen, verdict in ((OLDER, Verdict.YIELD), (NEWER, Verdict.REASSERT)):
        assert _contradicted(_awake(now_s), seen, retained=False, now_s=now_s) is verdict


def test_who_slept_or_lost_its_connection_yields_to_whoever_took_its_place_old_or_new() -> None:
    for seen in (OLDER, NEWER):
        asleep = _awake(60.0)
        woke_s = 60.0 + PATIENCE_S + 1
        assert _contradicted(asleep, seen, retained=False, now_s=woke_s) is Verdict.YIELD
        cut_off = _awake(60.0)
        cut_off.note_return(60.0)
        assert _contradicted(cut_off, seen, retained=True, now_s=61.0) is Verdict.YIELD


def test_nobody_yields_to_a_status_that_its_session_does_not_repeat() -> None:
    young, cut_off = _awake(1.0), _awake(60.0)
    cut_off.note_return(60.0)
    for tenure, now_s in ((young, 1.0), (cut_off, 61.0)):
        for number in range(5):
            seen = OLDER.model_copy(update={"session": f"forged {number}"})
            assert tenure.judge(STATUS, seen, retained=False, now_s=now_s) is Verdict.REASSERT
            assert tenure.judge(STATUS, STATUS, retained=False, now_s=now_s) is Verdict.IGNORE
        assert tenure.judge(STATUS, seen, retained=True, now_s=now_s) is not Verdict.YIELD


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
