"""What a run ends with: its model, and which round that is of.

`model.*` are of the best evaluated round, or of the last if the job says so or none was evaluated;
`last.*` are always of the last; `result.json` says which rounds these are.
"""

import json
from dataclasses import asdict
from functools import partial

from edge_coordinator.formatting import figure_in_words, figure_of
from edge_coordinator.job.job import Job
from edge_coordinator.job.standing import Point
from edge_coordinator.run.best_weights import load_best
from edge_coordinator.run.confusion import plot_confusion
from edge_coordinator.run.directory import RunDirectory
from edge_coordinator.run.model.files import save_onnx, save_weights, write_file
from edge_coordinator.run.results import Results
from edge_coordinator.training.edge_model import EdgeModel

_WEIGHTS, _ONNX = ".safetensors", ".onnx"


def finish(
    directory: RunDirectory, job: Job, model: EdgeModel, *, ended: str
) -> tuple[list[str], Results]:
    """Write the model and the curves of a run that has rounds; `ended` is empty if it may go on.

    A line on each round that is kept, and what could not be written.
    """
    results = Results()
    lines = write_outcome(
        directory, job, model, results, ended=ended or "interrupted", complete=bool(ended)
    )
    results.attempt("curves.png", directory.save_curves)
    return lines, results


def write_outcome(
    directory: RunDirectory,
    job: Job,
    model: EdgeModel,
    results: Results,
    *,
    ended: str,
    complete: bool,
) -> list[str]:
    """Write the files of a run's model, as ONNX too if it is complete; a line on each round.

    The weights of the best round are in the model afterwards.
    """
    last = directory.reports[-1]
    best = directory.reached.standing.best if directory.rules.keep == "best" else None
    chosen = best or last
    write_model = partial(_write_model, directory, job, model, results, complete=complete)
    write_model(name="last", of=last)
    if chosen.round == last.round:
        _copy_model(directory, results, complete=complete)
    else:
        load_best(directory.path, model.network)
        write_model(name="model", of=chosen)
    if complete and job.test is not None:
        results.attempt("confusion.png", partial(_write_confusion, directory, job, model, chosen))
    results.attempt("result.json", lambda: _write_result(directory, chosen, last, ended=ended))
    return _lines(directory, chosen, last, complete=complete)


def _write_model(
    directory: RunDirectory,
    job: Job,
    model: EdgeModel,
    results: Results,
    *,
    name: str,
    of: Point,
    complete: bool,
) -> None:
    weights, onnx = (directory.path / f"{name}{suffix}" for suffix in (_WEIGHTS, _ONNX))
    classes = job.classes or directory.classes
    features, by = job.settings.data.features, job.assignment.normalisation
    save_them = partial(
        save_weights,
        *(weights, model.network),
        round_=of.round,
        classes=classes,
        features=features,
        by=by,
    )
    results.attempt(weights.name, save_them)
    if complete:
        export = partial(save_onnx, onnx, model.network, job.shapes[0], round_=of.round)
        export_them = partial(export, classes=classes, features=features, by=by)
        results.attempt(onnx.name, export_them)


def _copy_model(directory: RunDirectory, results: Results, *, complete: bool) -> None:
    for suffix in (_WEIGHTS, _ONNX) if complete else (_WEIGHTS,):
        source, target = (directory.path / f"{name}{suffix}" for name in ("last", "model"))
        if source.is_file():  # Else it has been said why it is not.
            results.attempt(target.name, lambda: write_file(target, source.read_bytes()))  # noqa: B023


def _write_confusion(directory: RunDirectory, job: Job, model: EdgeModel, chosen: Point) -> None:
    """Draw which classes the model takes for which; nothing if its labels are no classes."""
    assert job.test is not None
    confusion = model.evaluate(job.test).confusion
    if confusion is not None:
        names = job.classes or tuple(str(number) for number in range(len(confusion)))
        names += tuple("" for _ in range(len(confusion) - len(names)))
        picture = plot_confusion(confusion, names, title=f"round {chosen.round}")
        write_file(directory.path / "confusion.png", picture)


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
    if figure := figure_of(point):
        return f"test {figure[0]} {figure_in_words(*figure)}"
    return "not evaluated" if point.test_loss is None else f"test loss {point.test_loss:.4g}"
