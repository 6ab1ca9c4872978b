"""The commands that simulate and compare, as their users start them."""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from edge_coordinator import Comparison
from edge_coordinator.__main__ import main

PLOTS = ("accuracy", "latency", "phases", "target", "groupings", "cuts")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _only_run(folder: Path) -> Path:
    (run,) = (folder / "runs").iterdir()
    return run


@pytest.mark.timeout(400)  # Seconds on an idle machine; a busy one takes its time to load torch.
def test_simulate_leaves_a_run_directory_whose_seconds_are_said_to_be_virtual(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "--rounds", "2"]) == 0
    said = capsys.readouterr().out
    assert "30 devices; the training is real, the seconds are simulated" in " ".join(said.split())
    assert "trained 2 rounds in 7.6 simulated s" in said
    run = _only_run(folder)
    rounds = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    assert [each["clock"] for each in rounds] == ["virtual", "virtual"]
    assert [each["elapsed_s"] for each in rounds] == pytest.approx([3.78, 7.56], rel=0.01)
    assert len(rounds[0]["plan"]["clusters"]) == 6
    assert (run / "model.onnx").exists()
    assert main(["local", "--resume", str(run), "--rounds", "3"]) == 1
    assert "go on with that command" in capsys.readouterr().err
    assert main(["simulate", "--resume", str(run), "--rounds", "3"]) == 0
    assert len((run / "rounds.jsonl").read_text().splitlines()) == 3


@pytest.mark.timeout(400)
def test_compare_writes_a_report_with_its_plots_and_figures(folder: Path) -> None:
    arguments = ["--devices", "6", "--rounds", "3", "--draws", "1", "--clusters", "2"]
    command = [
        "compare",
        "--methods",
        "cpsl,fl,cl",
        "--workers",
        "1",
        "--scenario",
        "heterogeneous",
        *arguments,
    ]
    assert main(command) == 0
    report = _only_run(folder)
    text = (report / "report.md").read_text()
    for plot in PLOTS:
        assert f"({plot}.png)" in text
        with Image.open(report / f"{plot}.png") as image:
            assert min(image.size) > 200
    rows = list(csv.DictReader((report / "rounds.csv").read_text().splitlines()))
    assert {row["variant"] for row in rows} == {"cpsl", "fl", "cl"}
    assert "cl: all devices' samples in one place, 18 steps of 16 samples a round" in text
    assert len(rows) == 9
    phases = [float(value) for key, value in rows[0].items() if key in _phase_columns(rows[0])]
    assert sum(phases) == pytest.approx(float(rows[0]["round_s"]))
    from_python = Comparison(report)
    assert from_python.report == text
    assert from_python.records[0]["round_s"] == float(rows[0]["round_s"])
    assert {row["variant"] for row in from_python.records} == {"cpsl", "fl", "cl"}


def _phase_columns(row: dict[str, str]) -> Sequence[str]:
    columns = list(row)
    return columns[columns.index("num_devices") + 1 :]


@pytest.mark.timeout(400)
def test_reproduce_falls_back_to_the_digits_and_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ("--rounds", "2", "--seeds", "1", "--draws", "1", "--workers", "1")
    assert main(["reproduce", "paper", *quick]) == 0
    said = capsys.readouterr().out
    assert "NOT the paper's MNIST" in said
    assert re.search(r"round of CPSL +3.78 s +3.78 s +calibrated", said)
    text = (_only_run(folder) / "report.md").read_text()
    assert "| round of FL | 33.43 s | 33.42 s | calibrated:" in text
    assert "| GFLOP/s of the server | 258 | 258 | 60 |" in text
    assert "NOT DECIDED by these runs: CPSL reaches 95%" in text
    assert "## Free parameters" in text


def test_a_method_that_does_not_fit_the_devices_is_found_before_another_trains(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "small.toml").write_text(
        "server_flop_per_s = 1e10\n[[devices]]\ncount = 4\nflop_per_s = 1e9\nup_bps = 1e6\n"
        "down_bps = 2e6\nmemory_bytes = 1.5e6\n",
        encoding="utf-8",
    )
    scenario = ("--scenario", "small.toml", "--devices", "4", "--rounds", "1")
    assert main(["compare", "--methods", "cpsl,fl", *scenario]) == 1
    told = capsys.readouterr()
    assert "fl, seed 0: no plan for round 1: no device can take part" in told.err
    assert told.out == ""
    assert main(["compare", "--methods", "cpsl", *scenario, "--draws", "1", "--workers", "1"]) == 0
    assert "| does not fit |" in (_only_run(folder) / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("simulate", "--scenario", "papr"), "nor one of paper, heterogeneous"),
        (("simulate", "--cut", "conv2"), "take one of these, or a scenario without layers"),
        (
            ("simulate", "--scenario", "paper", "--model", "mlp", "--cut", "fc1"),
            "which the network lacks",
        ),
        (
            ("simulate", "--clusters", "1", "--devices", "31"),
            "31 devices in a cluster, 30 subcarriers",
        ),
        (("simulate", "--spread", "9"), "devices.spread = 9: input should be less than"),
        (("compare", "--rounds", "0"), "training.rounds = 0"),
        (
            ("compare", "--methods", "cpsl,fl", "--devices", "36"),
            "fl, seed 0: 36 devices in a cluster, 30 subcarriers in the scenario; take fewer "
            "devices\n",
        ),
        (
            ("compare", "--methods", "sl", "--method", "sl", "--devices", "36", "--clusters", "1"),
            "cannot be studied: 36 devices in a cluster, 30 subcarriers\n",
        ),
        (("reproduce", "paper", "--data", "nowhere"), "no data source 'nowhere'"),
        (("reproduce", "paper", "--target-accuracy", "95"), "--target-accuracy 95"),
    ],
)
def test_a_mistake_is_one_sentence_and_a_non_zero_exit(
    arguments: Sequence[str], sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(list(arguments)) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not list(folder.glob("runs/*"))
