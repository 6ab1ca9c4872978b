"""The rounds of a run in short, as those are told who come in the midst of it."""

import json
from pathlib import Path

import pytest

from edge_coordinator.monitor.record import RunRecord, history_so_far
from runtime.errors import SettingsError
from runtime.wire.history import MAX_EVENTS, MAX_POINTS, History, HistoryReport
from tests.sites import make_plan, make_round


def _line(number: int, **changes: object) -> str:
    report = json.loads(make_round(number, **changes).encode())
    plan = json.loads(make_plan("ab", round=number).encode())
    return json.dumps(report | {"clock": "wall", "plan": plan}) + "\n"


def test_a_history_has_every_round_and_what_befell_its_devices() -> None:
    history = History()
    history.plan(make_plan("ab", "c", round=1, left_out={"d": "too little memory"}), 9)
    history.add(make_round(1, lost={"b": "silent"}, test_accuracy=0.123456789))
    history.plan(make_plan("abd", "c", round=2, changed="a link got slower"), 9)
    history.add(make_round(2))
    report = HistoryReport.decode(history.report(7).encode())
    assert (report.run, report.num_rounds, report.round) == (7, 9, (1, 2))
    assert report.test_accuracy == (0.12346, None)
    assert [(event.round, event.kind, event.device) for event in report.events] == [
        (1, "left_out", "d"),
        (1, "lost", "b"),
        (2, "replanned", ""),
        (2, "back", "b"),
        (2, "back", "d"),
    ]


def test_a_device_that_stays_away_is_told_of_once() -> None:
    history = History()
    for number in range(1, 5):
        history.plan(make_plan("ab", round=number, left_out={"d": f"rests, {number}"}), 9)
        history.add(make_round(number))
    assert len(history.report(7).events) == 1


def test_a_history_stays_small_and_spans_the_run_however_long_it_is() -> None:
    history = History()
    for number in range(1, 4 * MAX_POINTS):
        history.plan(make_plan("ab", round=number, changed="why not " * 10), 0)
        history.add(make_round(number))
    report = HistoryReport.decode(history.report(7).encode())
    assert MAX_POINTS / 2 <= len(report.round) <= MAX_POINTS
    assert report.round[0] == 1
    assert report.round[-1] == 4 * MAX_POINTS - 1
    assert {len(getattr(report, name)) for name in ("elapsed_s", "cut_layer")} == {
        len(report.round)
    }
    assert len(report.events) == MAX_EVENTS


def test_a_run_that_goes_on_tells_of_its_rounds_so_far(tmp_path: Path) -> None:
    assert history_so_far(tmp_path).report(7).round == ()
    whole = _line(1) + _line(2, lost={"a": "silent"})
    (tmp_path / "rounds.jsonl").write_text(whole + _line(3)[:50], encoding="utf-8")
    report = history_so_far(tmp_path).report(7)
    assert report.round == (1, 2)
    assert [event.kind for event in report.events] == ["lost"]
    found = RunRecord(tmp_path).round(2)
    assert found is not None
    assert found[0].lost == {"a": "silent"}
    assert RunRecord(tmp_path).round(3) is None
    assert RunRecord(tmp_path).last()[0].round == 2


def test_a_directory_that_is_no_runs_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no round was finished there"):
        RunRecord(tmp_path)
    with pytest.raises(SettingsError, match="is not a directory"):
        RunRecord(tmp_path / "nosuch")
    (tmp_path / "rounds.jsonl").write_text('{"round": 1}\n', encoding="utf-8")
    with pytest.raises(SettingsError, match="cannot be read as the rounds of a run"):
        RunRecord(tmp_path).last()
