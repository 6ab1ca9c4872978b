"""The devices of a site as a table, and predicted seconds beside measured ones."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from edge_coordinator.formatting import amount, duration, short_seconds
from edge_coordinator.monitor.state import Activity, DeviceView, Presence
from profiles.phases import Phase
from runtime.wire.fields import as_words
from runtime.wire.measures import ComputeProfile, LinkProfile, PhaseSeconds

_WIDE = 110
_ENGINE_WIDTH = 6
_OTHERS_WIDTH, _WIDE_OTHERS_WIDTH = 72, 95
"""Columns that a line takes beside the device's name."""
_SHORTER = {"onnxruntime": "onnx"}
_STYLES = {Presence.ONLINE: "green", Presence.STALE: "yellow", Presence.OFFLINE: "red"}

_HEADERS = {
    Phase.DISTRIBUTE: "model down",
    Phase.FORWARD: "forward",
    Phase.UPLOAD: "upload",
    Phase.SERVER: "server",
    Phase.DOWNLOAD: "download",
    Phase.BACKWARD: "backward",
    Phase.MODEL_UPLOAD: "model up",
}


@dataclass(frozen=True)
class _Column:
    header: str
    """Two lines: what, and its unit."""
    cell: Callable[[DeviceView], str]
    needs_width: bool = False


def _compute(show: Callable[[ComputeProfile], str]) -> Callable[[DeviceView], str]:
    return lambda view: show(view.profile.compute) if view.profile and view.profile.compute else "-"


def _link(show: Callable[[LinkProfile], str]) -> Callable[[DeviceView], str]:
    return lambda view: show(view.profile.link) if view.profile and view.profile.link else "-"


def _age(seconds: float | None) -> str:
    return "-" if seconds is None else duration(seconds)


def _load(view: DeviceView) -> str:
    load = view.profile.load_fraction if view.profile is not None else None
    return "-" if load is None else f"{load:.0%}"


def _sum(phases: PhaseSeconds | None) -> str:
    return "-" if phases is None else short_seconds(sum(phases.by_phase.values()))


_COLUMNS = (
    _Column("fwd\nFLOPS", _compute(lambda compute: amount(compute.forward_flop_per_s))),
    _Column("back\nFLOPS", _compute(lambda c: amount(c.backward_flop_per_s)), needs_width=True),
    _Column("\nage", lambda view: _age(view.ages.compute_s)),
    _Column("up\nbit/s", _link(lambda link: amount(link.up_bps))),
    _Column("down\nbit/s", _link(lambda link: amount(link.down_bps))),
    _Column("round\ntrip", _link(lambda link: short_seconds(link.round_trip_s))),
    _Column("\nage", lambda view: _age(view.ages.link_s)),
    _Column("free\nbytes", lambda v: amount(v.profile.free_memory_bytes) if v.profile else "-"),
    _Column("\nload", _load, needs_width=True),
    _Column("\nage", lambda view: _age(view.ages.facts_s)),
    _Column("\ncl", lambda view: "-" if view.cluster is None else str(view.cluster + 1)),
    _Column("of\nlink", lambda view: "-" if view.share is None else f"{view.share:.0%}"),
    _Column("epoch\nplan", lambda view: _sum(view.predicted), needs_width=True),
    _Column("epoch\ntook", lambda view: _sum(view.measured), needs_width=True),
)


class DeviceTable:
    """A row for each device; with more room, more columns.

    A name that has no room beside its figures stands on a line of its own above them: then so do
    all.
    """

    def __init__(self, devices: Sequence[DeviceView], *, width: int) -> None:
        self._devices = devices
        self._is_wide = width >= _WIDE
        others = _WIDE_OTHERS_WIDTH if self._is_wide else _OTHERS_WIDTH
        longest = max((cell_len(view.device) for view in devices), default=0)
        self._names_apart = longest > width - others

    @property
    def lines_per_device(self) -> int:
        """How many lines a device takes."""
        return 2 if self._names_apart else 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render for a terminal."""
        if not self._names_apart:
            yield self._table()
            return
        lines = console.render_lines(self._table(), options, pad=False)
        header, rows = lines[: -len(self._devices)], lines[-len(self._devices) :]
        for line in header:
            yield from _in_one_line(line)
        for view, row in zip(self._devices, rows, strict=True):
            yield _name(view)
            yield from _in_one_line(row)

    def _table(self) -> Table:
        columns = [column for column in _COLUMNS if self._is_wide or not column.needs_width]
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
        table.add_column("\ndevice", no_wrap=True)
        table.add_column("\nstate", no_wrap=True)
        table.add_column("\nengine", no_wrap=True, max_width=_ENGINE_WIDTH)
        for column in columns:
            table.add_column(column.header, justify="right", no_wrap=True)
        table.add_column("\nphase", no_wrap=True)
        for view in self._devices:
            table.add_row(
                "" if self._names_apart else _name(view),
                Text(view.presence, style=_STYLES[view.presence]),
                Text(as_words(_SHORTER.get(view.engine, view.engine)) or "-"),
                *(Text(column.cell(view)) for column in columns),
                Text(view.activity, style="bold" if view.activity is Activity.TRAINS else "dim"),
            )
        return table


def _name(view: DeviceView) -> Text:
    return Text(view.device, style="" if view.presence is Presence.ONLINE else "dim")


def _in_one_line(segments: Sequence[Segment]) -> Iterator[Segment]:
    yield from segments
    yield Segment.line()


def more_devices(hidden: Sequence[DeviceView]) -> Text:
    """Say what there is no room for."""
    counts = Counter(view.presence for view in hidden)
    by_state = ", ".join(f"{counts[p]} {p}" for p in Presence if counts[p])
    return Text(f"and {len(hidden)} more ({by_state}): make the window higher", style="dim")


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
    return [short_seconds(fmean(row.by_phase[phase] for row in rows)) for phase in _HEADERS]
