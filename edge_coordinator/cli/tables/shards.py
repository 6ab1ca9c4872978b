"""Tables of who holds which samples."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from edge_coordinator.job.settings import JobSettings, device_names
from runtime.datasets.partition import class_counts, partition
from runtime.datasets.samples import MOST_CLASSES, DataSet

Counts = NDArray[np.int64]

MAX_DEVICE_ROWS = 30
NUM_NAMED_CLASSES = 4
_FIRST_COLUMNS = ("device", "samples", "classes")


def data_table(
    counts: Counts,
    *,
    devices: Sequence[str],
    class_names: Sequence[str] | None = None,
    width: int,
) -> Table:
    """Show samples per device and class in `width` columns; `counts` is [device, class].

    Where a column for every class has no room, a row names the device's four largest classes. Of
    many devices the first ones have rows.
    """
    names = class_names or [str(label) for label in range(counts.shape[1])]
    shown = Table(box=SIMPLE_HEAD, padding=0, show_edge=False, title=_title(counts))
    first, *others = _FIRST_COLUMNS
    shown.add_column(first, overflow="fold")
    for other in others:
        shown.add_column(other, justify="right", no_wrap=True)
    listed, rest = counts[:MAX_DEVICE_ROWS], counts[MAX_DEVICE_ROWS:]
    has_room = _needed_width(counts, devices, names) <= width
    if has_room:
        for name in names:
            shown.add_column(name, justify="right", no_wrap=True)
    else:
        shown.add_column("largest classes", overflow="fold")
    for device, row in zip(devices, listed, strict=False):
        cells = map(_count, row) if has_room else [_largest(row, names)]
        shown.add_row(device, *_sums(row), *cells)
    if len(rest):
        shown.add_row(f"{len(rest)} more", str(rest.sum()))
    if has_room:
        totals = counts.sum(axis=0)
        shown.add_section()
        shown.add_row("all", *_sums(totals), *map(_count, totals))
    return shown


def _needed_width(counts: Counts, devices: Sequence[str], names: Sequence[str]) -> int:
    """Columns of a terminal with a column for every class, and a space between them."""
    largest = [len(str(total)) for total in counts.sum(axis=0)]
    class_widths = [max(cell_len(name), size) for name, size in zip(names, largest, strict=True)]
    device_width = max(cell_len(device) for device in (*devices, _FIRST_COLUMNS[0]))
    other_widths = [len(header) for header in _FIRST_COLUMNS[1:]]
    return sum(width + 1 for width in (device_width, *other_widths, *class_widths)) - 1


def _sums(row: Counts) -> tuple[str, str]:
    return str(row.sum()), str(np.count_nonzero(row))


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


def show_shards(console: Console, settings: JobSettings, data: DataSet) -> None:
    """Print how many samples of which class each device will have."""
    labels, count = data.train.y, settings.devices.count
    parts = partition(labels, settings.data.partition, num_devices=count, seed=settings.seed)
    if data.num_classes is None or data.num_classes > MOST_CLASSES:
        sizes = ", ".join(str(len(part)) for part in parts)
        console.print(f"samples of {count} devices: {sizes}")
        return
    counts = class_counts(labels, parts, num_classes=data.num_classes)
    table = data_table(
        counts,
        devices=device_names(count),
        class_names=data.train.class_names,
        width=console.width,
    )
    console.print(table)
