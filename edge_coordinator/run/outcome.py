"""What a run ends with: its model, and which round that is of.

`model.*` are of the best evaluated round, or of the last if the job says so or none was evaluated;
`last.*` are always of the last; `result.json` says which rounds these are.
"""

import json
from dataclasses import asdict

from edge_coordinator.job.job import Job
from edge_coordinator.job.standing import Point
from edge_coordinator.run.best_weights import load_best
from edge_coordinator.run.directory import RunDirectory
from edge_coordinator.run.model_files import save_onnx, save_weights, write_file
from edge_coordinator.training.edge_model import EdgeModel


def write_outcome(
    directory: RunDirectory, job: Job, model: EdgeModel, *, ended: str, complete: bool
) -> list[str]:
    """Write the files of a run's model, as ONNX too if it is complete; a line on each round.

    The weights of the best round are in the model afterwards.
    """
    last = directory.reports[-1]
    best = directory.reached.standing.best if directory.rules.keep == "best" else None
    chosen = best or last
    _write_model(directory, job, model, "last", last, complete=complete)
    if chosen.round == last.round:
        _copy_model(directory, complete=complete)
    else:
        load_best(directory.path, model.network)
        _write_model(directory, job, model, "model", chosen, complete=complete)
    _write_result(directory, chosen, last, ended=ended)
    return _lines(directory, chosen, last, complete=complete)


def _write_model(
    directory: RunDirectory, job: Job, model: EdgeModel, name: str, of: Point, *, complete: bool
) -> None:
    path = directory.path / name
    save_weights(path.with_suffix(".safetensors"), model.network, round_=of.round)
    if complete:
        save_onnx(path.with_suffix(".onnx"), model.network, job.shapes[0], round_=of.round)


def _copy_model(directory: RunDirectory, *, complete: bool) -> None:
    for suffix in (".safetensors", ".onnx") if complete else (".safetensors",):
        content = (directory.path / f"last{suffix}").read_bytes()
        write_file(directory.path / f"model{suffix}", content)


def _write_result(directory: RunDirectory, chosen: Point, last: Point, *, ended: str) -> None:
    result = {
        "ended": ended,
        "clock": directory.clock,
        "model": {"kept": directory.rules.keep, **asdict(chosen)},
        "last": asdict(last),
    }
    content = json.dumps(result, indent=2) + "\n"
    write_file(directory.path / "result.json", content.encode())


def _lines(directory: RunDirectory, chosen: Point, last: Point, *, complete: bool) -> list[str]:
    is_best = directory.reached.standing.best == chosen and directory.rules.keep == "best"
    if chosen.round == last.round:
        which = "the last and the best" if is_best else "the last"
        return [f"model.*, last.*: round {last.round}, {which}: {_scores(last)}"]
    onnx = (", model.onnx", ", last.onnx") if complete else ("", "")
    return [
        f"model.safetensors{onnx[0]}: round {chosen.round}, the best: {_scores(chosen)}",
        f"last.safetensors{onnx[1]}: round {last.round}, the last: {_scores(last)}",
    ]


def _scores(point: Point) -> str:
    if point.test_accuracy is not None:
        return f"test accuracy {point.test_accuracy:.2%}"
    return "not evaluated" if point.test_loss is None else f"test loss {point.test_loss:.4g}"
