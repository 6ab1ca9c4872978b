"""The job.toml that a run leaves is the job, whichever command takes it; and its plans replay."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_coordinator.__main__ import main
from edge_coordinator.job.file import load_job

pytestmark = pytest.mark.timeout(400)  # Seconds on an idle machine; each run loads torch anew.


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(*arguments: str) -> Path:
    """Run a command that leaves a run directory; which."""
    before = set(Path("runs").glob("*"))
    assert main(arguments) == 0
    (run,) = set(Path("runs").glob("*")) - before
    return run


def _weights(run: Path) -> str:
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--devices", "3", "--plan", "by_hand"),
        ("--devices", "2", "--method", "fl", "--partition", "iid", "--batch-size", "8"),
        (
            *("--devices", "2", "--method", "sl", "--plan", "by_hand", "--cut", "conv2"),
            *("--set", "training.server_optimizer.name=adamw", "--learning-rate", "0.001"),
        ),
        (
            *("--devices", "4", "--cluster-size", "3", "--plan", "by_hand", "--model", "mlp"),
            *("--cut", "fc1", "--partition", "dirichlet:1", "--seed", "3"),
            *("--set", "training.schedule.name=cosine"),
        ),
    ],
    ids=["defaults", "fl", "sl", "sizes"],
)
def test_a_simulation_of_a_local_runs_job_ends_in_the_same_weights(
    arguments: Sequence[str],
) -> None:
    local = _run("local", "--rounds", "2", *arguments)
    simulated = _run("simulate", "--config", str(local / "job.toml"))
    assert _weights(local) == _weights(simulated)


def test_a_planned_run_is_replayed_to_the_same_weights_locally_and_in_simulation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    planned = _run("local", "--devices", "3", "--rounds", "3")
    said = capsys.readouterr().out
    assert "s predicted at cut" in said
    replay = ("--plan", f"replay:{planned}")
    for again in (_run("local", *replay), _run("simulate", *replay)):
        assert _weights(again) == _weights(planned)
    assert f"the job and its plans are those of {planned}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("local", "--plan", "replay:nowhere"), "nowhere is not the directory of a run"),
        (("local", "--plan", "replay:"), "plan.mode = 'replay:': input should be 'auto', 'by_h"),
        (("local", "--plan", "by-hand"), "plan.mode = 'by-hand': input should be 'auto', 'by_h"),
        (
            ("simulate", "--plan", "by_hand", "--set", "plan.grouping=planned"),
            "by hand, grouping cannot be 'planned': that is planned; take mode auto",
        ),
    ],
)
def test_a_mode_that_cannot_be_is_one_sentence(
    arguments: Sequence[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(list(arguments)) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_what_a_run_goes_on_with_is_written_down(capsys: pytest.CaptureFixture[str]) -> None:
    run = _run("simulate", "--devices", "2", "--model", "mlp", "--cut", "fc1", "--rounds", "1")
    changed = ("--rounds", "2", "--learning-rate", "0.005")
    assert main(("simulate", "--resume", str(run), *changed)) == 0
    training = load_job(run / "job.toml", {}).training
    assert (training.rounds, training.server_optimizer.learning_rate) == (2, 0.005)
    assert main(("simulate", "--resume", str(run))) == 0
    assert "all 2 rounds are done" in capsys.readouterr().out
