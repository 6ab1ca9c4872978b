"""How predictions are shown and written."""

import math
from pathlib import Path
from typing import Any

from rich.table import Table

from edge_coordinator.cli.inference.predicting import Judged
from edge_coordinator.cli.output import Output
from edge_coordinator.formatting import amount, figure_in_words
from edge_coordinator.run.model.files import write_file
from edge_coordinator.run.model.halves import SplitModel
from edge_coordinator.training.evaluation import Evaluation
from runtime.inference.half import HalfInfo
from runtime.inference.predictions import Predictions

_SHOWN = 10
"""Samples that people are shown."""
_ITEM_BYTES = 4


def show(console: Output, split: SplitModel, result: Judged, *, output: Path | None) -> None:
    """Answer with predictions, or write them to a file and say so."""
    predictions = result.predictions
    if output is not None:
        write_file(output, predictions.as_file(output.suffix))
    document = _document(split, result)
    if output is not None:
        document["output"] = str(output)
    elif console.is_json:
        document["predictions"] = list(predictions.rows())
    if console.form == "quiet":
        console.answer(document, str(output) if output else predictions.as_csv().rstrip("\n"))
        return
    where = f"written to {output}" if output else f"the first {_SHOWN}; --output FILE writes all"
    if output is None and len(predictions) <= _SHOWN:
        where = ""
    console.answer(
        document, *([] if output else [_table(predictions)]), _said(split, result, where)
    )


def _document(split: SplitModel, result: Judged) -> dict[str, Any]:
    info, evaluation = split.info, result.evaluation
    return {
        "network": info.network,
        "round": info.round,
        "cut": info.cut,
        "smashed_shape": list(split.smashed_shape),
        "num_samples": len(result.predictions),
        "loss": evaluation.loss if evaluation and math.isfinite(evaluation.loss) else None,
        "metric": (evaluation.metric or None) if evaluation else None,
        "figures": evaluation.figures if evaluation else {},
    }


def _said(split: SplitModel, result: Judged, where: str) -> str:
    num_bytes = _ITEM_BYTES * math.prod(split.smashed_shape)
    words = [
        f"{len(result.predictions)} samples, cut after {_cut(split.info)}: "
        f"{amount(num_bytes)}B of smashed data a sample"
    ]
    if result.evaluation is not None:
        words.append(_figures(result.evaluation))
    return "; ".join([*words, *([where] if where else [])])


def _cut(info: HalfInfo) -> str:
    return "no layer" if info.cut == "input" else info.cut


def _figures(evaluation: Evaluation) -> str:
    said = [figure_in_words(name, value) for name, value in evaluation.figures.items()]
    named = [f"{name} {value}" for name, value in zip(evaluation.figures, said, strict=True)]
    return ", ".join([f"loss {evaluation.loss:.4g}", *named])


def _table(predictions: Predictions) -> Table:
    table = Table(box=None, pad_edge=False)
    rows = [row for row, _ in zip(predictions.rows(), range(_SHOWN), strict=False)]
    for name in rows[0] if rows else ():
        table.add_column(name)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    return table


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
