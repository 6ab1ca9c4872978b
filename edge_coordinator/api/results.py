"""What came of runs, as objects: read from their directories, so of earlier runs as well."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_coordinator.api.job import Job
from edge_coordinator.monitor.record import RunRecord
from edge_coordinator.monitor.rounds_table import row_of
from runtime.errors import SettingsError
from runtime.wire.published import PlanReport, RoundReport

if TYPE_CHECKING:
    import torch

Records = list[dict[str, Any]]
Frame = Any
"""A DataFrame of pandas, or else of polars, or else `Records`: whichever is installed."""


@dataclass(frozen=True)
class Run:
    """A run that is done, or was stopped, by its directory."""

    path: Path

    @property
    def job(self) -> Job:
        """The job as it was run: with everything filled in that it left open."""
        return Job.read(self.path)

    @property
    def rounds(self) -> tuple[RoundReport, ...]:
        """What is published of each round."""
        return tuple(RunRecord(self.path).reports())

    def plan(self, round_: int) -> PlanReport:
        """Give the plan of a round, with its reasons; SettingsError if there is none."""
        found = RunRecord(self.path).round(round_)
        if found is None or found[1] is None:
            raise SettingsError(f"{self.path} holds no plan of round {round_}")
        return found[1]

    @property
    def records(self) -> Records:
        """A row for each round, in plain numbers."""
        return [row_of(report) | _figures(report) for report in self.rounds]

    @property
    def history(self) -> Frame:
        """The same as a DataFrame, where pandas or polars is installed."""
        return frame_of(self.records)

    @property
    def ended(self) -> str:
        """Why it ended; `interrupted` if it can go on."""
        return str(self._result()["ended"])

    @property
    def best_round(self) -> int:
        """The round that its model is of: the best, or the last, as `evaluation.keep` says."""
        return int(self._result()["model"]["round"])

    def weights(self, name: str = "model") -> "Mapping[str, torch.Tensor]":
        """The weights of `model`, or of the `last` round: what `load_state_dict` takes."""
        from safetensors.torch import load_file  # noqa: PLC0415, it brings torch.

        weights: Mapping[str, torch.Tensor] = load_file(self.path / f"{name}.safetensors")
        return weights

    def _result(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.path / "result.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise SettingsError(f"{self.path} has no result yet: {error}") from error
        return found


@dataclass(frozen=True)
class Comparison:
    """Methods side by side, by the folder of their report."""

    path: Path

    @property
    def report(self) -> str:
        """The report, as Markdown."""
        return (self.path / "report.md").read_text(encoding="utf-8")

    @property
    def records(self) -> Records:
        """A row for each round of each run."""
        return list(_read_csv(self.path / "rounds.csv"))

    @property
    def history(self) -> Frame:
        """The same as a DataFrame, where pandas or polars is installed."""
        return frame_of(self.records)

    @property
    def summary(self) -> Frame:
        """A row for each run: what it came to, and when."""
        return frame_of(list(_read_csv(self.path / "runs.csv")))


def frame_of(records: Sequence[dict[str, Any]]) -> Frame:
    """Make a DataFrame of pandas, or else of polars; the records where neither is installed."""
    if find_spec("pandas") is not None:
        return import_module("pandas").DataFrame(records)
    if find_spec("polars") is not None:
        return import_module("polars").DataFrame(records, infer_schema_length=None)
    return list(records)


def _figures(report: RoundReport) -> dict[str, float]:
    """All figures of the evaluation, those too that say nothing of which round is better."""
    return {f"test_{name}": value for name, value in report.test_figures.items()}


def _read_csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {name: _number(text) for name, text in row.items()}


def _number(text: str) -> object:
    """Read a cell: a number, a truth value, nothing, or else text."""
    if text in ("", "True", "False"):
        return None if not text else text == "True"
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text
