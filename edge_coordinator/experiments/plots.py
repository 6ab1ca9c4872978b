"""The plots of a comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from edge_coordinator.experiments.latencies import EXHAUSTIVE
from edge_coordinator.experiments.results import TrainedRun, evaluated, mean_phase_s, smoothed
from edge_coordinator.run.plot_style import (
    COLOURS,
    HATCHES,
    LAST_COLOUR,
    MARKERS,
    figure,
    line_style,
)
from profiles.phases import Phase
from profiles.units import Floats

PHASE_NAMES = {
    Phase.DISTRIBUTE: "model to devices",
    Phase.FORWARD: "device forward",
    Phase.UPLOAD: "upload of smashed data",
    Phase.SERVER: "server",
    Phase.DOWNLOAD: "download of gradients",
    Phase.BACKWARD: "device backward",
    Phase.MODEL_UPLOAD: "model to server",
}
CLOSE_UP_PERCENT = 90


def plot_accuracy(
    path: Path, runs: Mapping[str, Sequence[TrainedRun]], *, target: float, until_s: float | None
) -> None:
    """Test accuracy over rounds and over simulated seconds: means over the seeds, and their range.

    `until_s` ends the axis of seconds, so that one slow method does not press the rest together.
    """
    with figure(path, width=9.0, height=6.4) as drawn:
        rows = drawn.subplots(2, 2, sharex="col", sharey="row")
        for row, lowest in zip(rows, (0, CLOSE_UP_PERCENT), strict=True):
            for axes, unit in zip(row, ("round", "seconds"), strict=True):
                for number, (label, own) in enumerate(runs.items()):
                    _accuracy_line(axes, number, label, own, unit=unit)
                axes.axhline(target * 100, color="0.5", linewidth=0.8)
                axes.grid(visible=True, alpha=0.3)
                axes.set_xlim(left=0, right=until_s if unit == "seconds" else None)
                axes.set_ylim(lowest, 100)
            row[0].set_ylabel("test accuracy (%)")
        rows[1][0].set_xlabel("round")
        rows[1][1].set_xlabel("simulated time (s)")
        said = f"smoothed; bands: between the seeds; grey line: target of {target:.0%}"
        rows[0][0].set_title(said, fontsize=8, loc="left")
        rows[1][0].set_title("the same, close up", fontsize=8, loc="left")
        handles, names = rows[0][0].get_legend_handles_labels()
        drawn.legend(handles, names, loc="outside lower center", ncols=5, handlelength=3.5)


def plot_latency(path: Path, runs: Mapping[str, Sequence[TrainedRun]]) -> None:
    """Seconds of each round, of the first seed."""
    with figure(path, width=6.0) as drawn:
        axes = drawn.subplots()
        for number, (label, own) in enumerate(runs.items()):
            rows = own[0].rounds
            axes.plot(
                [row.round for row in rows],
                [row.round_s for row in rows],
                label=label,
                **line_style(number),
            )
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("round")
        axes.set_ylabel("latency of a round (s, log scale)")
        axes.grid(visible=True, which="both", alpha=0.3)
        drawn.legend(loc="outside right upper", handlelength=3.5)


def plot_phases(path: Path, runs: Mapping[str, Sequence[TrainedRun]]) -> None:
    """Where the seconds of a mean round go: in seconds, and as fractions."""
    labels = list(runs)
    seconds = np.array([mean_phase_s(own) for own in runs.values()])  # [variant, phase]
    with figure(path, width=9.0, height=1.9 + 0.42 * len(labels)) as drawn:
        left, right = drawn.subplots(1, 2, sharey=True)
        _stacked(left, labels, seconds)
        _stacked(right, labels, 100 * seconds / seconds.sum(axis=1, keepdims=True))
        for place, total in enumerate(seconds.sum(axis=1)):
            left.annotate(
                f"{total:.3g} s", (total, place), xytext=(3, 0), textcoords="offset points",
                va="center", fontsize=8,
            )  # fmt: skip
        left.set_xlim(right=seconds.sum(axis=1).max() * 1.18)
        left.set_xlabel("mean latency of a round (s)")
        right.set_xlabel("part of the round (%)")
        left.invert_yaxis()
        handles, names = left.get_legend_handles_labels()
        drawn.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8)


def plot_bars(
    path: Path,
    labels: Sequence[str],
    panels: Sequence[tuple[str, Sequence[float | None]]],
    *,
    missing: str,
    one_colour: bool = False,
) -> None:
    """One panel for each figure, a bar for each label; `missing` stands where there is none."""
    with figure(path, width=3.0 * len(panels) + 1.0, height=1.2 + 0.4 * len(labels)) as drawn:
        every = drawn.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, values) in zip(every, panels, strict=True):
            looks = [0] if one_colour else range(len(COLOURS))
            _bars(axes, labels, values, looks=looks, missing=missing)
            axes.set_xlabel(title)
        every[0].invert_yaxis()


def plot_groupings(
    path: Path,
    spreads: Sequence[float],
    panels: Sequence[tuple[str, Mapping[str, Sequence[float]]]],
) -> None:
    """Round latency of each way of grouping against the spread of the devices' states."""
    with figure(path, width=4.2 * len(panels) + 0.4, height=3.8) as drawn:
        every = drawn.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, curves) in zip(every, panels, strict=True):
            for number, (label, means_s) in enumerate(curves.items()):
                axes.plot(
                    [100 * spread for spread in spreads],
                    means_s,
                    label=label,
                    marker=MARKERS[number % len(MARKERS)],
                    markersize=8 if label == EXHAUSTIVE else 4,
                    fillstyle="none" if label == EXHAUSTIVE else "full",
                    **line_style(number),
                )
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("relative deviation of speeds and rates (%)")
            axes.set_ylim(bottom=0)
            axes.grid(visible=True, alpha=0.3)
            axes.legend(loc="upper left", handlelength=3.5, fontsize=8)
        every[0].set_ylabel("mean latency of a round (s)")


def _accuracy_line(
    axes: Axes, number: int, label: str, runs: Sequence[TrainedRun], *, unit: str
) -> None:
    """Draw the mean of smoothed accuracies over the seeds, and between which they lie."""
    curves = [_curve(run, unit) for run in runs]
    if not curves or not curves[0][0].size:
        return
    shortest = min(len(x) for x, _ in curves)
    x = np.mean([x[:shortest] for x, _ in curves], axis=0)
    y = 100 * np.array([y[:shortest] for _, y in curves])
    axes.plot(x, y.mean(axis=0), label=label, **line_style(number))
    if len(runs) > 1:
        axes.fill_between(
            x, y.min(axis=0), y.max(axis=0), color=COLOURS[number % len(COLOURS)], alpha=0.15,
            linewidth=0,
        )  # fmt: skip


def _curve(run: TrainedRun, unit: str) -> tuple[Floats, Floats]:
    rows, accuracies = evaluated(run)
    x = [row.round if unit == "round" else row.elapsed_s for row in rows]
    return np.array(x, dtype=np.float64), smoothed(accuracies)


def _stacked(axes: Axes, labels: Sequence[str], parts: Floats) -> None:
    """Stack the phases, [label, phase], one bar for each label."""
    starts = np.zeros(len(labels))
    for phase in Phase:
        axes.barh(
            labels,
            parts[:, phase],
            left=starts,
            height=0.62,
            label=PHASE_NAMES[phase],
            color=COLOURS[phase % len(COLOURS)] if phase != Phase.MODEL_UPLOAD else LAST_COLOUR,
            hatch=HATCHES[phase],
            edgecolor="white" if phase != Phase.MODEL_UPLOAD else "0.4",
            linewidth=0.4,
        )
        starts = starts + parts[:, phase]
    axes.grid(visible=True, axis="x", alpha=0.3)


def _bars(
    axes: Axes,
    labels: Sequence[str],
    values: Sequence[float | None],
    *,
    looks: Sequence[int],
    missing: str,
) -> None:
    highest = max((value for value in values if value is not None), default=1.0) or 1.0
    for number, value in enumerate(values):
        look = looks[number % len(looks)]
        axes.barh(
            number,
            value or 0.0,
            height=0.62,
            color=COLOURS[look],
            hatch=HATCHES[look],
            edgecolor="white",
            linewidth=0.4,
        )
        said = missing if value is None else _short(value)
        axes.annotate(
            said, (value or 0.0, number), xytext=(3, 0), textcoords="offset points",
            va="center", fontsize=8,
        )  # fmt: skip
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlim(0, highest * 1.3)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(visible=True, axis="x", alpha=0.3)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _plain(value: float, _: object) -> str:
    return f"{value:g}"
