"""Tables that `cpsl` prints: the costs of a network's cuts, and who holds which samples."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from edge_coordinator.formatting import amount
from edge_coordinator.job.settings import JobSettings, device_names
from profiles.cuts import CutTable, Floats, device_round_bytes
from runtime.datasets.partition import class_counts, partition
from runtime.datasets.samples import MOST_CLASSES, DataSet

LAYER_COLUMNS = ("forward\nFLOP", "backward\nFLOP", "state\nbytes", "output", "output\nbytes")
CUT_COLUMNS = ("bytes of\na round", "saved", "FLOP of\na step", "saved")

Counts = NDArray[np.int64]

MAX_DEVICE_ROWS = 30
NUM_NAMED_CLASSES = 4
_FIRST_COLUMNS = ("device", "samples", "classes")


def model_tables(
    table: CutTable, *, num_cuts: int | None = None, batch_size: int, local_epochs: int
) -> Group:
    """Show what each layer costs, and what cutting the network after it does.

    `num_cuts` is how many there are, if these are not all.

    The first table is of one sample. The second is a device's at each cut: the bytes of a round
    and the FLOPs of a step (one batch, forward and backward), each with how much less that is than
    with the whole network and the loss on the device, which is what the last row shows (as `fl`
    trains; the others would also exchange the network's outputs).
    """
    cuts = _empty("cut after", *CUT_COLUMNS)
    round_bytes = device_round_bytes(table, batch_size=batch_size, local_epochs=local_epochs)
    step_flop = batch_size * (table.device_forward_flop + table.device_backward_flop)
    for cut, name in enumerate(table.cut_names):
        cuts.add_row(name, *_saved(round_bytes, cut), *_saved(step_flop, cut))
    return Group(
        Text(f"{table.network}: each layer, one sample", style="italic"),
        _layer_table(table),
        Text(
            f"\n{table.network}: each cut, one device; "
            f"batch of {batch_size}, {local_epochs} local epoch(s)",
            style="italic",
        ),
        cuts,
        Text("saved: against the last row, the whole network and the loss on the device", "dim"),
        *(Text(note, "dim") for note in _notes(table, num_cuts)),
    )


def _layer_table(table: CutTable) -> Table:
    layers = _empty("layer", "kind", *LAYER_COLUMNS)
    layers.add_row("input", "", "", "", "", _shape(table.input_shape), amount(table.input_bytes))
    for layer in table.layers:
        layers.add_row(
            layer.name,
            layer.kind,
            amount(layer.forward_flop),
            amount(layer.backward_flop),
            amount(layer.state_bytes),
            _shape(layer.activation_shape),
            amount(layer.activation_bytes),
        )
    return layers


def _notes(table: CutTable, num_cuts: int | None) -> list[str]:
    notes = []
    if frozen_bytes := table.device_frozen_bytes[-1]:
        notes.append(f"{amount(frozen_bytes)} bytes of state do not learn: they travel once")
    if num_cuts not in (None, table.num_layers):
        notes.append(
            f"{table.num_layers} of {num_cuts} cuts: ends of modules, and the cheapest within "
            "them; a row counts what lies between. --all shows every cut"
        )
    return notes


def model_document(table: CutTable, *, batch_size: int, local_epochs: int) -> dict[str, Any]:
    """Give what `model_tables` shows as JSON has it: layers of one sample, cuts of a device."""
    round_bytes = device_round_bytes(table, batch_size=batch_size, local_epochs=local_epochs)
    step_flop = batch_size * (table.device_forward_flop + table.device_backward_flop)
    costs = zip(table.cut_names, round_bytes.tolist(), step_flop.tolist(), strict=True)
    return {
        "network": table.network,
        "input_shape": table.input_shape,
        "batch_size": batch_size,
        "local_epochs": local_epochs,
        "layers": [asdict(layer) for layer in table.layers],
        "cuts": [
            {"cut": cut, "after": name, "round_bytes": num_bytes, "step_flop": flop}
            for cut, (name, num_bytes, flop) in enumerate(costs)
        ],
    }


def _empty(*columns: str) -> Table:
    """Names wrap wherever they have to, figures never do."""
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        is_name = column in {"layer", "kind", "cut after"}
        shown.add_column(
            column, justify="left" if is_name else "right", overflow="fold", no_wrap=not is_name
        )
    return shown


def plain_table(*columns: str) -> Table:
    """Begin a table of words, without a frame."""
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        shown.add_column(column, overflow="fold")
    return shown


def _saved(values: Floats, cut: int) -> tuple[str, str]:
    """Write a cut's value, and how far it lies below that of the whole network."""
    if values[-1] == 0:
        return amount(values[cut]), ""
    ratio = values[cut] / values[-1]
    return amount(values[cut]), f"{1 - ratio:.1%}" if 0 < ratio < 2 else _round_ratio(ratio)


def _round_ratio(ratio: float) -> str:
    """Write the savings of a cut that saves everything, or costs a multiple instead."""
    return "100%" if ratio == 0 else f"{ratio:.1f} x"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)


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
