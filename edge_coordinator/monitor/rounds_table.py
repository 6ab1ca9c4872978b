"""All rounds of recorded runs as one table, for spreadsheets and notebooks."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from edge_coordinator.monitor.record import RunRecord
from runtime.errors import SettingsError, StorageError
from runtime.wire.published import RoundReport

_COUNTED = ("dropped", "faults")
"""Told by device or by kind: the table has their numbers."""
_SCALARS = (int, float, str, bool)


def rounds_of(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Give a row for each round of each run, the first column being the run's name."""
    return [
        {"run_name": path.resolve().name, **row_of(report)}
        for path in paths
        for report in RunRecord(path).reports()
    ]


def write_tables(runs: Sequence[Path], *, csv_file: Path | None, parquet_file: Path | None) -> None:
    """Write the rounds of runs as CSV (`-` is standard output), as Parquet, or both."""
    rows = rounds_of(runs)
    if csv_file is not None and str(csv_file) == "-":
        write_csv(rows, sys.stdout)
    elif csv_file is not None:
        try:
            with csv_file.open("w", encoding="utf-8", newline="") as file:
                write_csv(rows, file)
        except OSError as error:
            raise StorageError(f"cannot write {csv_file}: {error.strerror}") from error
    if parquet_file is not None:
        write_parquet(rows, parquet_file)


def write_csv(rows: Sequence[dict[str, Any]], file: IO[str]) -> None:
    """Write a line of names and a line for each row; what is not known is left empty."""
    writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def write_parquet(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a Parquet file; SettingsError where polars is not installed."""
    try:
        import polars  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError(
            "--parquet needs polars, not installed here: pip install 'cpsl-edge[tables]'"
        ) from error
    try:
        polars.DataFrame(rows, infer_schema_length=None).write_parquet(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def row_of(report: RoundReport) -> dict[str, Any]:
    """Give the figures of a round, and how many of what is told by device or by kind."""
    row: dict[str, Any] = {"run": f"{report.run:016x}"}
    for name, value in report.model_dump(mode="json", exclude={"run"}).items():
        if name == "lost":
            row["num_lost"] = len(value)
        elif name == "drawn_j":
            row[name] = sum(value.values()) if value else None
        elif name in _COUNTED:
            row[f"num_{name}"] = sum(value.values())
        elif value is None or isinstance(value, _SCALARS):
            row[name] = value
    return row
