"""A report's table on a terminal: the same cells, in whatever width there is."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from edge_coordinator.experiments.report import methods_header, methods_rows
from edge_coordinator.experiments.results import Runs

_BRIEFLY = (0, 1, 2, 4, 5)
"""Columns of the report's table of methods: not the rounds and a device's work."""


def shown_methods(runs: Runs, *, target: float) -> Table:
    """Show what each variant came to, in short."""
    header, rows = methods_header(target), methods_rows(runs, target=target)
    brief = [[row[column] for column in _BRIEFLY] for row in rows]
    return shown_table([header[column] for column in _BRIEFLY], brief)


def shown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Lay out a table; cells wrap where the room is short."""
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for number, name in enumerate(header):
        shown.add_column(
            Text(name), justify="right" if number else "left", overflow="fold", vertical="top"
        )
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    return shown
