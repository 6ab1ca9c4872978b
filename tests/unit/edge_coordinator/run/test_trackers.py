"""A run's figures in other tools, as these read them; and its rounds as tables."""

import contextlib
import csv
import json
import re
from collections.abc import Mapping
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from edge_coordinator.__main__ import main
from edge_coordinator.job.settings import JobSettings
from edge_coordinator.monitor.rounds_table import rounds_of, write_csv, write_tables
from edge_coordinator.run.events import RoundDone
from edge_coordinator.run.trackers.tracker import figures_of, flat_settings, tracked
from runtime.errors import SettingsError
from runtime.offered import TRACKERS
from tests.sites import make_round

ROUNDS = [
    make_round(1, train_loss=2.0, test_accuracy=None),
    make_round(2, train_loss=1.5, test_accuracy=0.5),
]
SETTINGS = flat_settings(JobSettings())


def _track(name: str, path: Path) -> None:
    path.mkdir()
    with tracked([name], path, SETTINGS) as observers:
        for report in ROUNDS:
            for observer in observers:
                observer.tell(RoundDone(report))


def test_tensorboards_own_reader_reads_every_figure_of_every_round(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _track("tensorboard", tmp_path / "run")
    events = reader.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    names = {name for report in ROUNDS for name in figures_of(report)}
    assert set(events.Tags()["scalars"]) == names
    for name in names:
        expected = [(each.round, figures_of(each).get(name)) for each in ROUNDS]
        found = [(point.step, point.value) for point in events.Scalars(name)]
        # A scalar of an event file is a float32.
        assert found == [(step, np.float32(x)) for step, x in expected if x is not None]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of what it is built on.
def test_mlflow_has_the_figures_of_every_round(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    _track("mlflow", tmp_path / "run")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("cpsl")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.5)]
    assert (run.info.status, run.data.params["training.rounds"]) == (
        "FINISHED",
        str(SETTINGS["training.rounds"]),
    )


def test_wandb_keeps_a_run_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    _track("wandb", tmp_path / "run")
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    losses = re.findall(rb"train_loss\W*?([0-9.]+)", file.read_bytes())
    assert [float(loss) for loss in dict.fromkeys(losses)] == [2.0, 1.5]


@pytest.mark.parametrize("name", ["tensorflow", *TRACKERS])
def test_a_tracker_that_is_not_there_is_said_before_anything_begins(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name in TRACKERS and find_spec(TRACKERS[name]) is not None:
        pytest.skip(f"{name} is installed here")
    with contextlib.suppress(SystemExit):
        assert main(["local", "--track", name]) == 1
    said = "is none of tensorboard, mlflow, wandb" if name not in TRACKERS else f"cpsl-edge[{name}]"
    assert said in capsys.readouterr().err


def test_a_tracker_that_cannot_begin_is_one_sentence_and_one_that_cannot_end_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboardX")
    (tmp_path / "tensorboard").write_text("a file in the way", encoding="utf-8")
    with (
        pytest.raises(SettingsError, match="--track tensorboard cannot begin: "),
        tracked(["tensorboard"], tmp_path, SETTINGS),
    ):
        pass
    (tmp_path / "tensorboard").unlink()
    with tracked([f"{__name__}:CannotEnd"], tmp_path, SETTINGS):
        pass
    assert "CannotEnd may lack the last figures: invalid literal" in caplog.text


class Kept:
    """A tracker of one's own."""

    opened: ClassVar[list["Kept"]] = []

    def __init__(self, path: Path, settings: Mapping[str, object]) -> None:
        self.opened.append(self)
        self.rounds: list[int] = []
        self.said = (path.name, settings)
        self.is_whole: bool | None = None

    def log(self, round_: int, figures: Mapping[str, float]) -> None:
        assert figures["train_loss"] > 0
        self.rounds.append(round_)

    def close(self, *, is_whole: bool) -> None:
        self.is_whole = is_whole


class CannotEnd(Kept):
    """Another, of a full disk."""

    def close(self, *, is_whole: bool) -> None:  # noqa: ARG002
        int("no")


def nothing_to_log_to(*_: object) -> object:
    return object()


def test_a_tracker_of_ones_own_is_told_of_the_run_and_of_each_round(tmp_path: Path) -> None:
    with tracked([f"{__name__}:Kept"], tmp_path, SETTINGS) as (observer,):
        observer.tell(RoundDone(make_round(3)))
    kept = Kept.opened[-1]
    assert (kept.said, kept.rounds, kept.is_whole) == ((tmp_path.name, SETTINGS), [3], True)
    with (
        pytest.raises(SettingsError, match=r"gave a object without log\(\)"),
        tracked([f"{__name__}:nothing_to_log_to"], tmp_path, SETTINGS),
    ):
        pass


def test_figures_of_any_task_are_kept_by_their_names() -> None:
    report = make_round(
        1,
        test_accuracy=None,
        metric="mae",
        test_metric=0.5,
        test_figures={"mae": 0.5, "R² (x)": 0.75},
    )
    figures = figures_of(report)
    assert (figures["test_mae"], figures["test_R___x_"]) == (0.5, 0.75)
    assert "test_accuracy" not in figures


def test_nobody_else_is_told_how_the_broker_is_reached() -> None:
    assert not [key for key in SETTINGS if key.startswith("broker")]
    assert SETTINGS["training.rounds"] == JobSettings().training.rounds


def _record(path: Path) -> Path:
    path.mkdir()
    lines = [
        f"{json.dumps(json.loads(report.encode()) | {'clock': 'wall'})}\n" for report in ROUNDS
    ]
    (path / "rounds.jsonl").write_text("".join(lines), encoding="utf-8")
    return path


def test_all_rounds_of_runs_are_one_table(tmp_path: Path) -> None:
    runs = [_record(tmp_path / name) for name in ("a", "b")]
    file = StringIO()
    write_csv(rounds_of(runs), file)
    rows = list(csv.DictReader(StringIO(file.getvalue())))
    assert [(row["run_name"], row["round"], row["train_loss"]) for row in rows] == [
        ("a", "1", "2.0"), ("a", "2", "1.5"), ("b", "1", "2.0"), ("b", "2", "1.5"),
    ]  # fmt: skip
    assert rows[0]["test_accuracy"] == ""


def test_a_parquet_file_has_the_same_rows(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    run, written = _record(tmp_path / "a"), tmp_path / "rounds.parquet"
    write_tables([run], csv_file=None, parquet_file=written)
    assert polars.read_parquet(written).to_dicts() == rounds_of([run])
