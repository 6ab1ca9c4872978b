"""Runs as they are listed: what each has come to, by its own metric."""

import json
from pathlib import Path

import pytest

from edge_coordinator.monitor.listing import recorded_runs
from tests.sites import make_round


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ({}, ("mae", 0.25, None)),
        ({"metric": "mae", "test_metric": 0.125, "test_accuracy": None}, ("mae", 0.125, None)),
        ({"test_accuracy": 0.5}, ("accuracy", 0.5, 0.5)),
    ],
    ids=["still-training", "kept-round", "before-there-were-metrics"],
)
def test_a_run_is_listed_by_its_own_metric(
    tmp_path: Path, kept: dict[str, object], expected: tuple[object, ...]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "job.toml").write_text("[training]\nrounds = 9\n", encoding="utf-8")
    report = make_round(2, test_accuracy=None, metric="mae", test_metric=0.25)
    (run / "rounds.jsonl").write_bytes(report.encode() + b"\n")
    if kept:
        result = {"ended": "stopped by anna", "model": kept}
        (run / "result.json").write_text(json.dumps(result), encoding="utf-8")
    (found,) = recorded_runs(tmp_path)
    assert (found.metric, found.test_metric, found.test_accuracy) == expected
    assert found.state == ("stopped by anna" if kept else "unfinished")
