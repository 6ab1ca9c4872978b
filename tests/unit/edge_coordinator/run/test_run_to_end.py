"""What a run leaves behind when it is told to end, or cannot go on."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from edge_coordinator.cli.output import Output
from edge_coordinator.cli.run_to_end import run_to_end
from edge_coordinator.job.job import Job
from edge_coordinator.run.checkpoint import Reached
from edge_coordinator.run.directory import RunDirectory
from edge_coordinator.run.events import Observer, RoundDone, Stopped
from edge_coordinator.run.folder import make_run_folder
from edge_coordinator.training.edge_model import EdgeModel
from runtime.errors import StorageError
from runtime.wire.frames import Tensor
from tests.builders import make_job, same_bits, weights_of
from tests.noise import shards
from tests.sites import make_round


def test_an_output_that_is_a_file_is_told_as_one(tmp_path: Path) -> None:
    job, _ = make_job(shards((40,), (1, 28, 28)), {})
    (tmp_path / "file").touch()
    settings = job.settings.model_copy(update={"output": tmp_path / "file"})
    with pytest.raises(StorageError, match="file cannot be written: it is no folder"):
        make_run_folder(settings, now=datetime(2026, 1, 1, tzinfo=UTC))


def _make_run(path: Path) -> tuple[Job, EdgeModel, RunDirectory]:
    settings = {"model.name": "mlp", "plan.cut": "fc1", "plan.clusters": 1, "training.rounds": 9}
    job, model = make_job(shards((40,), (1, 28, 28)), settings)
    (path / "job.toml").write_text("")
    return job, model, RunDirectory(path)


def _learn(model: EdgeModel) -> None:
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(1.0)


def test_a_run_that_is_stopped_amid_a_round_leaves_the_model_of_the_round_before(
    tmp_path: Path,
) -> None:
    job, model, directory = _make_run(tmp_path)

    async def train(_: Sequence[Observer]) -> None:
        for round_ in (1, 2):
            _learn(model)
            directory.tell(RoundDone(make_round(round_, test_accuracy=round_ / 10)))
            if round_ == 1:
                directory.save(model, Reached(1, 1.0))
                kept.update(weights_of(model))
        raise asyncio.CancelledError  # The second round is told of, but not in the checkpoint.

    said = StringIO()
    kept: dict[str, Tensor] = {}
    with pytest.raises(asyncio.CancelledError):
        run_to_end(Output(file=said, width=200), job, model, directory, train)
    assert same_bits(load_file(tmp_path / "model.safetensors"), kept)
    assert "stopped after 1 rounds" in said.getvalue()
    assert "test accuracy 10.00%" in said.getvalue()


def test_a_run_that_is_stopped_before_its_first_checkpoint_leaves_no_model(tmp_path: Path) -> None:
    job, model, directory = _make_run(tmp_path)

    async def train(_: Sequence[Observer]) -> None:
        directory.tell(RoundDone(make_round(1)))
        raise asyncio.CancelledError

    said = StringIO()
    with pytest.raises(asyncio.CancelledError):
        run_to_end(Output(file=said, width=200), job, model, directory, train)
    assert not (tmp_path / "model.safetensors").exists()
    assert "no round was finished" in said.getvalue()


def test_a_run_that_somebody_stopped_says_who_and_how_it_goes_on(tmp_path: Path) -> None:
    job, model, directory = _make_run(tmp_path)

    async def train(_: Sequence[Observer]) -> None:
        directory.tell(RoundDone(make_round(1)))
        directory.save(model, Reached(1, 1.0))
        directory.tell(Stopped("anna@lab"))

    said = StringIO()
    run_to_end(Output("json", file=said), job, model, directory, train)
    run, result = map(json.loads, said.getvalue().splitlines())
    assert run == {"event": "run", "directory": str(tmp_path)}
    assert result["ended"] == "stopped by anna@lab"
    assert json.loads((tmp_path / "result.json").read_text())["ended"] == "stopped by anna@lab"
    assert (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "curves.png"])
def test_what_cannot_be_written_at_the_end_does_not_hide_why_it_ended(
    name: str, tmp_path: Path
) -> None:
    job, model, directory = _make_run(tmp_path)
    (tmp_path / name).mkdir()

    async def train(_: Sequence[Observer]) -> None:
        directory.tell(RoundDone(make_round(1)))
        directory.save(model, Reached(1, 1.0))
        raise StorageError("the disk is full; make room and go on with --resume")

    said = StringIO()
    with pytest.raises(StorageError, match="make room"):
        run_to_end(Output(file=said, width=200), job, model, directory, train)
    assert f"{name} cannot be written" in said.getvalue()


@pytest.mark.parametrize("name", ["curves.png", "model.onnx"])
def test_what_cannot_be_written_after_the_last_round_is_one_sentence(
    name: str, tmp_path: Path
) -> None:
    job, model, directory = _make_run(tmp_path)
    (tmp_path / name).mkdir()

    async def train(_: Sequence[Observer]) -> None:
        directory.tell(RoundDone(make_round(9)))

    with pytest.raises(StorageError, match=rf"{name} cannot be written"):
        run_to_end(Output(file=StringIO()), job, model, directory, train)


class _Unexportable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x if float(x.mean()) > 0 else x


def test_a_result_that_a_network_has_not_is_said_and_the_others_are_written(
    tmp_path: Path,
) -> None:
    job, model, directory = _make_run(tmp_path)
    model.network.append(_Unexportable())
    layers = [layer for layer in model.network if isinstance(layer, nn.Linear)]
    tied = nn.Parameter(layers[-1].bias.detach())
    layers[-1].bias = tied
    model.network.append(nn.Identity())
    model.network[-1].register_parameter("same", tied)

    async def train(_: Sequence[Observer]) -> None:
        directory.tell(RoundDone(make_round(9)))

    said = StringIO()
    run_to_end(Output(file=said, width=200), job, model, directory, train)
    assert "last.onnx was not written: " in said.getvalue()
    assert len(said.getvalue().splitlines()) < 10
    names = {file.name for file in tmp_path.iterdir()}
    assert {"model.safetensors", "last.safetensors", "result.json", "curves.png"} <= names
    weights = load_file(tmp_path / "model.safetensors")
    assert (
        sum(value.tobytes() == tied.detach().numpy().tobytes() for value in weights.values()) == 2
    )
