"""The figures of a comparison as CSV and as Markdown."""

import csv
from collections.abc import Iterable, Sequence
from math import isfinite
from pathlib import Path

from edge_coordinator.experiments.results import (
    Milestone,
    Runs,
    best_smoothed,
    converged,
    mean_round_s,
    reached,
)
from profiles.phases import Phase


def write_rounds(path: Path, runs: Runs) -> None:
    """Write every round of every run; seconds are simulated, bytes are those of frames."""
    phases = [phase.field for phase in Phase]
    header = (
        *("variant", "seed", "round", "elapsed_s", "round_s", "train_loss", "test_loss"),
        *("test_accuracy", "up_bytes", "down_bytes", "table_up_bytes", "table_down_bytes"),
        *("device_flop", "num_devices", *phases),
    )
    _write(
        path,
        header,
        (
            [
                *(label, run.seed, row.round, row.elapsed_s, row.round_s, row.train_loss),
                *(row.test_loss, row.test_accuracy, row.up_bytes, row.down_bytes),
                *(row.table_up_bytes, row.table_down_bytes, row.device_flop, row.num_devices),
                *row.phase_s,
            ]
            for label, own in runs.items()
            for run in own
            for row in run.rounds
        ),
    )


def write_runs(path: Path, runs: Runs, *, target: float) -> None:
    """Write one row for each run: what it came to, and when.

    Where an event `is_bound`, it did not come within the run: it took as much or more.
    """
    events = ("target", "converged")
    parts = ("round", "elapsed_s", "num_bytes", "device_flop", "is_bound")
    header = (
        *("variant", "seed", "rounds", "mean_round_s", "final_accuracy", "best_smoothed_accuracy"),
        *(f"{event}_{part}" for event in events for part in parts),
    )
    _write(
        path,
        header,
        (
            [
                *(label, run.seed, len(run.rounds), mean_round_s([run]), run.final_accuracy),
                best_smoothed(run),
                *_cells(reached(run, target)),
                *_cells(converged(run)),
            ]
            for label, own in runs.items()
            for run in own
        ),
    )


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write any other table."""
    _write(path, header, rows)


def read_tables(folder: Path) -> dict[str, list[dict[str, str | float | None]]]:
    """Read all tables of a report's folder: name of the file to its rows; None for what is empty.

    Cells are numbers where they look like some, else text.
    """
    tables = {}
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            tables[path.stem] = [
                {name: _value(cell) for name, cell in row.items()} for row in csv.DictReader(file)
            ]
    return tables


def _value(cell: str) -> str | float | None:
    try:
        number = float(cell)
    except ValueError:
        return cell or None
    return (int(number) if number.is_integer() else number) if isfinite(number) else None


def _cells(event: Milestone | None) -> list[object]:
    if event is None:
        return [None] * 5
    return [event.round, event.elapsed_s, event.num_bytes, event.device_flop, event.is_bound]


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, of_words: bool = False) -> str:
    """Write a table: the first column on the left, the others on the right unless of words."""
    rule = ["---", *["---" if of_words else "---:"] * (len(header) - 1)]
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def seconds(value: float) -> str:
    """Write seconds with what digits they need."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 20 else f"{value:.2f}"


def percent(value: float) -> str:
    """Write a fraction as a percentage."""
    return f"{100 * value:.1f} %"


def megabytes(value: float) -> str:
    """Write bytes as MB of 10^6."""
    return f"{value / 1e6:.3g}" if value < 1e9 else f"{value / 1e6:.0f}"


def whole(value: float) -> str:
    """Write a count."""
    return f"{value:.0f}"


def gigaflop(value: float) -> str:
    """Write FLOP as GFLOP."""
    return f"{value / 1e9:.3g}" if value < 1e12 else f"{value / 1e9:.0f}"
