"""Predicted seconds beside measured ones, phase by phase, as a table to read."""

from collections.abc import Sequence
from statistics import fmean

from rich.table import Table
from rich.text import Text

from edge_coordinator.amounts import short_seconds
from edge_coordinator.site_state import DeviceView
from runtime.wire.published import PhaseSeconds

_HEADERS = {
    "distribute_s": "model down",
    "forward_s": "forward",
    "upload_s": "upload",
    "server_s": "server",
    "download_s": "download",
    "backward_s": "backward",
    "model_upload_s": "model up",
}


def seconds_of_devices(devices: Sequence[DeviceView]) -> Table | None:
    """Show what these devices are predicted to take and took; None if there is neither."""
    return seconds_table(
        predicted=[view.predicted for view in devices if view.predicted is not None],
        measured=[view.measured for view in devices if view.measured is not None],
    )


def seconds_table(
    *, predicted: Sequence[PhaseSeconds], measured: Sequence[PhaseSeconds]
) -> Table | None:
    """Show the means over the devices of one local epoch; None if nobody predicts or measures."""
    if not predicted and not measured:
        return None
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("device mean", no_wrap=True)
    for header in _HEADERS.values():
        table.add_column(header, justify="right", no_wrap=True)
    for name, rows in (("predicted", predicted), ("measured", measured)):
        if rows:
            table.add_row(Text(name, style="dim"), *_means(rows))
    return table


def _means(rows: Sequence[PhaseSeconds]) -> list[str]:
    return [short_seconds(fmean(getattr(row, phase) for row in rows)) for phase in _HEADERS]
