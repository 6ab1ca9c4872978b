"""The runs of a folder: what each has come to, by what it has written down."""

import json
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_coordinator.formatting import EvaluatedFigure, figure_of
from edge_coordinator.monitor.record import RunRecord
from runtime.errors import SettingsError

_JOB = "job.toml"


@dataclass(frozen=True)
class RecordedRun:
    """One run; None where it has not written that (yet)."""

    name: str
    path: str
    state: str
    """Why it ended, in its own words; `unfinished`: it trains, or was killed."""
    round: int
    num_rounds: int | None
    metric: str | None
    """What says how good a round is, by name: accuracy, iou, mae …; its value is `test_metric`."""
    test_metric: float | None
    """Of the round whose weights are kept, or of the last that is written down."""
    test_accuracy: float | None
    elapsed_s: float | None

    def as_json(self) -> dict[str, Any]:
        """Give it by the names that docs/watching.md explains."""
        return asdict(self)


def recorded_runs(folder: Path) -> list[RecordedRun]:
    """List the runs of a folder by name; SettingsError if it is none."""
    if not folder.is_dir():
        raise SettingsError(f"{folder} is not a folder; give the one that runs are written to")
    found = sorted(path.parent for path in folder.glob(f"*/{_JOB}"))
    return [_run_of(path) for path in found]


def _run_of(path: Path) -> RecordedRun:
    result, settings = _json_of(path / "result.json"), _toml_of(path / _JOB)
    try:
        last, _ = RunRecord(path).last()
    except SettingsError:
        last = None  # No round is done, or none can be read.
    kept = result.get("model") or {}
    of_kept = EvaluatedFigure(
        str(kept.get("metric") or ""), kept.get("test_metric"), kept.get("test_accuracy")
    )
    figure = figure_of(of_kept) or (figure_of(last) if last is not None else None)
    return RecordedRun(
        name=path.name,
        path=str(path),
        state=str(result.get("ended") or "unfinished"),
        round=last.round if last is not None else 0,
        num_rounds=settings.get("training", {}).get("rounds"),
        metric=figure[0] if figure else None,
        test_metric=figure[1] if figure else None,
        test_accuracy=figure[1] if figure and figure[0] == "accuracy" else of_kept.test_accuracy,
        elapsed_s=last.elapsed_s if last is not None else None,
    )


def _json_of(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _toml_of(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
