"""A run keeps its best round, whatever ends it and however it goes on."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from edge_coordinator.cli.output import Output
from edge_coordinator.cli.run_to_end import run_to_end
from edge_coordinator.job.job import Job
from edge_coordinator.run.best_weights import BEST_NAME, keep_checkpoint
from edge_coordinator.run.checkpoint import Reached, save_checkpoint
from edge_coordinator.run.directory import RunDirectory
from edge_coordinator.run.events import Observer, RoundDone
from edge_coordinator.training.edge_model import EdgeModel
from runtime.wire.frames import Tensor
from tests.builders import make_job, same_bits, weights_of
from tests.noise import shards
from tests.sites import make_round

SETTINGS = {"model.name": "mlp", "plan.cut": "fc1", "plan.clusters": 1, "training.rounds": 9}
ACCURACIES = (0.5, 0.9, 0.8, 0.7)


class _Run:
    """A run whose rounds are told instead of trained: each adds one to every weight."""

    def __init__(self, path: Path, **settings: object) -> None:
        self.job: Job
        self.model: EdgeModel
        self.path = path
        (path / "job.toml").write_text("")
        self._settings = SETTINGS | settings
        self.start()

    def start(self) -> None:
        """Begin, or begin again where a killed run was."""
        self.job, self.model = make_job(shards((40,), (1, 28, 28)), self._settings)
        rules = self.job.settings.evaluation
        self.directory = RunDirectory.resume(self.path, self.model, rules=rules)

    def round(self, accuracy: float) -> dict[str, Tensor]:
        """Do the next round; the weights it ends in."""
        reached = self.tell(accuracy)
        self.directory.save(self.model, reached)
        return weights_of(self.model)

    def tell(self, accuracy: float) -> Reached:
        """Do the next round as far as the line that is written down."""
        before = self.directory.reached
        with torch.no_grad():
            for parameter in self.model.network.parameters():
                parameter.add_(1.0)
        report = make_round(before.round + 1, test_accuracy=accuracy, test_loss=1.0)
        self.directory.tell(RoundDone(report))
        standing = self.job.standing_after(before.standing, report)
        return Reached(report.round, report.elapsed_s, standing=standing)

    def end(self) -> str:
        """Write down what there is; what was said."""
        said = StringIO()
        console = Output(file=said, width=80)
        done = bool(self.job.why_over(self.directory.reports[-1], self.directory.reached.standing))

        async def train(_: Sequence[Observer]) -> None:
            raise asyncio.CancelledError

        try:
            run_to_end(console, self.job, self.model, self.directory, train)
        except asyncio.CancelledError:
            assert not done
        return said.getvalue()

    def kept(self, name: str) -> Mapping[str, Tensor]:
        return load_file(self.path / f"{name}.safetensors")


def test_the_model_of_a_run_is_its_best_round_and_the_last_lies_beside_it(tmp_path: Path) -> None:
    run = _Run(tmp_path, **{"training.rounds": 4})
    _, best, _, last = [run.round(accuracy) for accuracy in ACCURACIES]
    said = run.end().splitlines()
    assert same_bits(run.kept("model"), best)
    assert same_bits(run.kept("last"), last)
    assert "model.safetensors, model.onnx: round 2, the best: test accuracy 90.00%" in said
    assert "last.safetensors, last.onnx: round 4, the last: test accuracy 70.00%" in said
    with safe_open(tmp_path / "model.safetensors", framework="np") as file:
        assert file.metadata() == {"input_shape": "[1, 28, 28]", "round": "2"}
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["model"]["round"], result["last"]["round"]) == (2, 4)


def test_a_job_may_keep_its_last_round_instead(tmp_path: Path) -> None:
    run = _Run(tmp_path, **{"evaluation.keep": "last"})
    *_, last = [run.round(accuracy) for accuracy in ACCURACIES]
    said = run.end()
    assert same_bits(run.kept("model"), last)
    assert "model.*, last.*: round 4, the last: test accuracy 70.00%" in said
    assert not (tmp_path / BEST_NAME).exists()


def test_a_run_killed_after_its_best_round_still_ends_with_it(tmp_path: Path) -> None:
    run = _Run(tmp_path)
    run.round(0.5)
    best = run.round(0.9)
    run.tell(0.95)  # Better, but killed before it is in a checkpoint: it is run again.
    run.start()
    run.round(0.8)
    run.start()
    run.round(0.7)
    run.end()
    assert same_bits(run.kept("model"), best)


def test_a_run_killed_before_its_best_checkpoint_was_kept_keeps_it_when_resumed(
    tmp_path: Path,
) -> None:
    run = _Run(tmp_path)
    run.round(0.5)
    save_checkpoint(tmp_path, run.model, run.tell(0.9))
    best = weights_of(run.model)
    run.start()
    run.round(0.8)
    run.end()
    assert same_bits(run.kept("model"), best)


def test_where_the_best_weights_are_lost_the_best_from_there_on_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = _Run(tmp_path)
    run.round(0.9)
    run.round(0.5)
    (tmp_path / BEST_NAME).unlink()
    run.start()
    assert "round 1 was the best, but its weights are not in" in caplog.text
    best = run.round(0.6)
    run.round(0.4)
    run.end()
    assert same_bits(run.kept("model"), best)


def test_keeping_the_best_writes_no_second_copy_of_it(tmp_path: Path) -> None:
    run = _Run(tmp_path)
    run.round(0.5)
    keep_checkpoint(tmp_path)
    assert (tmp_path / BEST_NAME).samefile(tmp_path / "checkpoint.safetensors")


def test_a_run_that_has_stopped_gaining_is_over_also_when_it_is_resumed(tmp_path: Path) -> None:
    run = _Run(tmp_path, **{"evaluation.patience": 1})
    run.round(0.9)
    run.round(0.8)
    run.start()
    said = run.job.why_over(run.directory.reports[-1], run.directory.reached.standing)
    assert said == "nothing gained since round 1 (patience 1)"
