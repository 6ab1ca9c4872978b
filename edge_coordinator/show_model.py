"""A network's cut table as a table to read: what each layer costs, and what each cut would save."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from edge_coordinator.amounts import amount
from profiles.cuts import BITS_PER_BYTE, CutTable, Floats

COLUMNS = (
    *("cut after", "kind", "forward\nFLOP", "backward\nFLOP", "state\nbytes", "output"),
    *("output\nbytes", "round\nbytes", "\nsaved", "step\nFLOP", "\nsaved"),
)


def model_table(table: CutTable, *, batch_size: int, local_epochs: int) -> Table:
    """Show a row for each layer, and for cutting the network after it.

    The left columns are the layer's own, for one sample. The right ones are a device's at that
    cut: the bytes of a round and the FLOPs of a step (one batch, forward and backward), each with
    how much less that is than with the whole network and the loss on the device, which is what
    the last row shows (as `fl` trains; the others would also exchange the network's outputs).
    """
    shown = Table(
        box=SIMPLE_HEAD,
        padding=0,
        show_edge=False,
        title=f"{table.network}: batch of {batch_size}, {local_epochs} local epoch(s)",
        caption="layer: one sample; cut: one device, against the whole network and the loss on it",
    )
    for column in COLUMNS:
        shown.add_column(column, justify="left" if column in COLUMNS[:2] else "right", no_wrap=True)
    round_bytes = device_round_bytes(table, batch_size=batch_size, local_epochs=local_epochs)
    step_flop = batch_size * (table.device_forward_flop + table.device_backward_flop)
    own_cells = [("", "", "", "", _shape(table.input_shape), amount(table.input_bytes))]
    own_cells += [
        (
            layer.kind,
            amount(layer.forward_flop),
            amount(layer.backward_flop),
            amount(layer.state_bytes),
            _shape(layer.activation_shape),
            amount(layer.activation_bytes),
        )
        for layer in table.layers
    ]
    for cut, own in enumerate(own_cells):
        saved = (*_saved(round_bytes, cut), *_saved(step_flop, cut))
        shown.add_row(table.cut_names[cut], *own, *saved)
    return shown


def device_round_bytes(table: CutTable, *, batch_size: int, local_epochs: int) -> Floats:
    """Bytes that a device exchanges in a round, [cut].

    Smashed data up and gradients down in each local epoch, and the device-side model down and up
    once. Nothing comes back for raw data (cut 0), and there are no smashed data at the last cut,
    where the loss is taken to be on the device too. Labels and message headers are left out.
    """
    exchanges = local_epochs * batch_size
    smashed_bytes = table.smashed_bits / BITS_PER_BYTE * exchanges
    both_ways = 2 * smashed_bytes
    both_ways[0] = smashed_bytes[0]
    both_ways[-1] = 0
    return both_ways + 2 * table.device_model_bits / BITS_PER_BYTE


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
