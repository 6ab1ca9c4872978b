"""Which device holds how many samples of which class, as a table to read."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

Counts = NDArray[np.int64]

MAX_DEVICE_ROWS = 30
MAX_CLASS_COLUMNS = 12
NUM_NAMED_CLASSES = 4


def data_table(
    counts: Counts, *, devices: Sequence[str], class_names: Sequence[str] | None = None
) -> Table:
    """Show samples per device and class; `counts` is [device, class].

    With more than twelve classes, a row names the device's four largest classes instead. Of many
    devices the first ones have rows.
    """
    names = class_names or [str(label) for label in range(counts.shape[1])]
    shown = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1), title=_title(counts))
    shown.add_column("device", no_wrap=True)
    shown.add_column("samples", justify="right")
    shown.add_column("classes", justify="right")
    listed = counts[:MAX_DEVICE_ROWS]
    if counts.shape[1] > MAX_CLASS_COLUMNS:
        shown.add_column("largest classes")
        rows = [[_largest(row, names)] for row in listed]
    else:
        for name in names:
            shown.add_column(name, justify="right")
        rows = [[_count(value) for value in row] for row in listed]
    for device, row, cells in zip(devices, listed, rows, strict=False):
        shown.add_row(device, str(row.sum()), str(np.count_nonzero(row)), *cells)
    if len(counts) > len(listed):
        rest = counts[len(listed) :]
        shown.add_row(f"{len(rest)} more", str(rest.sum()))
    if counts.shape[1] <= MAX_CLASS_COLUMNS:
        totals = counts.sum(axis=0)
        shown.add_section()
        cells = [_count(value) for value in totals]
        shown.add_row("all", str(totals.sum()), str(np.count_nonzero(totals)), *cells)
    return shown


def _title(counts: Counts) -> str:
    num_devices, num_classes = counts.shape
    return f"{counts.sum()} samples of {num_classes} classes on {num_devices} devices"


def _largest(row: Counts, names: Sequence[str]) -> str:
    """Name the largest classes of a device and how many samples each has."""
    order = np.argsort(-row, kind="stable")[:NUM_NAMED_CLASSES]
    named = [f"{names[index]}: {row[index]}" for index in order if row[index] > 0]
    more = np.count_nonzero(row) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _count(value: np.int64) -> str:
    return str(value) if value else "·"
