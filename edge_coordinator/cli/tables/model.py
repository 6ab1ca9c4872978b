"""Tables of what a network's layers and its cuts cost."""

from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from edge_coordinator.formatting import amount
from profiles.cuts import CutTable, Floats, device_round_bytes

LAYER_COLUMNS = ("forward\nFLOP", "backward\nFLOP", "state\nbytes", "output", "output\nbytes")
CUT_COLUMNS = ("bytes of\na round", "saved", "FLOP of\na step", "saved")


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
