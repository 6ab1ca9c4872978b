"""Which of a network's cuts to show: a list of readable length, and a picture of all.

A network that is cut along its graph has a place after almost every operation, hundreds of them.
Shown are the ends of modules, of the outermost first and of inner ones as long as there is room,
and of what is inside of each that stays closed the cheapest cut.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from edge_coordinator.run.plot_style import COLOURS, figure
from profiles.cuts import CutTable
from profiles.units import BITS_PER_BYTE, Floats

MOST_ROWS = 20
"""Cuts that are shown of a network that has more."""
MOST_NAMED = 45
"""Names that have room below a picture."""


def choose_cuts(names: Sequence[str], round_bytes: Floats, *, most: int) -> Sequence[int]:
    """Choose cuts to show, in order, the last among them; all if they are no more than `most`.

    `names` are the layers', with dots between modules and what is in them, [layer];
    `round_bytes` is [cut].
    """
    every = range(1, len(names) + 1)
    if len(names) <= most:
        return every
    open_groups = _inside(every, names, depth=1)
    if len(_shown(open_groups, round_bytes)) > most:
        edges = [round(at * len(names) / (most // 2)) for at in range(most // 2 + 1)]
        return _shown([every[i:j] for i, j in pairwise(edges)], round_bytes)
    closed: set[range] = set()
    while waiting := [group for group in open_groups if group not in closed]:
        largest = max(waiting, key=len)
        inner = _opened(largest, names)
        at = open_groups.index(largest)
        opened = [*open_groups[:at], *inner, *open_groups[at + 1 :]]
        if len(inner) == 1 or len(_shown(opened, round_bytes)) > most:
            closed.add(largest)
        else:
            open_groups = opened
    return _shown(open_groups, round_bytes)


def _opened(group: range, names: Sequence[str]) -> list[range]:
    """Part a group by the outermost modules that there are several of in it; itself if none."""
    deepest = max(name.count(".") for name in names) + 1
    parted = (_inside(group, names, depth=depth) for depth in range(1, deepest + 1))
    return next((parts for parts in parted if len(parts) > 1), [group])


def _inside(group: range, names: Sequence[str], *, depth: int) -> list[range]:
    """Part a run of cuts where another module of this depth begins.

    What has a shorter name is the end of an outer module, and so of the inner one before it.
    """
    starts = [group.start]
    last = ""
    for cut in group:
        parts = names[cut - 1].split(".")
        own = ".".join(parts[:depth]) if len(parts) >= depth else last
        if own != last and last:
            starts.append(cut)
        last = own
    return [range(start, stop) for start, stop in pairwise([*starts, group.stop])]


def _shown(groups: Sequence[range], round_bytes: Floats) -> list[int]:
    """The end of each group, and the cheapest cut within it if that is cheaper than its end."""
    cheapest = (min(reversed(group), key=lambda cut: round_bytes[cut]) for group in groups)
    return sorted({*cheapest, *(group[-1] for group in groups)})


def plot_cuts(
    path: Path, table: CutTable, round_bytes: Floats, *, named: Sequence[int], batch_size: int
) -> None:
    """Draw what a device exchanges and computes at each cut, from none of the layers to all."""
    flop = batch_size * (table.device_forward_flop + table.device_backward_flop)
    memory = table.device_model_bits / BITS_PER_BYTE + table.device_frozen_bytes
    unit, flop_of_unit = ("GFLOP", 1e9) if flop[-1] >= 1e10 else ("MFLOP", 1e6)
    panels = (
        ("MB of a round", round_bytes / 1e6),
        (f"{unit} of a step", flop / flop_of_unit),
        ("MB of parameters", memory / 1e6),
    )
    cuts = np.arange(table.num_layers + 1)
    ticks = _apart(named, table.num_layers)
    names = [table.cut_names[cut] for cut in ticks]
    with figure(path, width=9.0, height=7.0) as drawn:
        every = drawn.subplots(len(panels), 1, sharex=True)
        for colour, axes, (label, values) in zip(COLOURS, every, panels, strict=False):
            axes.step(cuts, values, where="mid", color=colour, linewidth=1.2)
            axes.plot(named, values[named], "o", color=colour, markersize=3.5)
            axes.set_ylabel(label)
            axes.grid(axis="y", alpha=0.3)
            axes.set_ylim(bottom=0)
            axes.set_xlim(-0.5, table.num_layers + 0.5)
        every[0].axhline(round_bytes[-1] / 1e6, color=COLOURS[-1], linestyle=":", linewidth=1.0)
        every[0].set_title(
            f"{table.network}: what a device does at each cut; dotted: with the whole network",
            loc="left",
        )
        every[-1].set_xticks(ticks, names, rotation=60, ha="right", rotation_mode="anchor")
        every[-1].tick_params(axis="x", labelsize=7)
        every[-1].set_xlabel("cut after")


def _apart(named: Sequence[int], num_layers: int) -> list[int]:
    """Those among the named cuts whose names do not cover each other; the last is one."""
    least, kept = num_layers / MOST_NAMED, [named[-1]]
    for cut in reversed(named):
        if kept[-1] - cut >= least:
            kept.append(cut)
    return kept[::-1]
