"""Accuracy against MB, sent up or down, and against seconds, for each variant."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.economy.runs import RunCurve
from edge_coordinator.run.plot_style import MARKERS, figure, line_style

LEAST_ACCURACY = 0.8


def draw(
    curves: Mapping[str, Sequence[RunCurve]], path: Path, *, target: float, is_down: bool = False
) -> None:
    """Write the picture; lines are means over seeds, marks where each seed reached the target.

    With `is_down` of what the coordinator sent, and of all accuracies, as where one ends low.
    """
    megabytes, way = (_down_mb, "down, once for all") if is_down else (_up_mb, "up, all devices")
    ends_at = min(float(curve.accuracy[-1]) for seeds in curves.values() for curve in seeds)
    least = 0.0 if is_down or ends_at < LEAST_ACCURACY else LEAST_ACCURACY
    with figure(path, width=9.0, height=4.0) as drawn:
        left, right = drawn.subplots(1, 2, sharey=True)
        for number, (name, seeds) in enumerate(curves.items()):
            style = line_style(number, width=1.3)
            accuracy = np.mean([curve.accuracy for curve in seeds], axis=0)
            for axes, measure in ((left, megabytes), (right, _seconds)):
                x = np.mean([measure(curve) for curve in seeds], axis=0)
                axes.plot(x, accuracy, label=name, **style)
                ends = [(measure(c)[p], c.accuracy[p]) for c in seeds
                        if (p := c.until(target)) is not None]  # fmt: skip
                axes.plot(
                    [end[0] for end in ends],
                    [end[1] for end in ends],
                    MARKERS[number % len(MARKERS)],
                    color=style["color"],
                    markersize=4,
                )
        for axes, what in ((left, f"MB sent {way}"), (right, "seconds of training")):
            axes.axhline(target, color="grey", linewidth=0.6)
            axes.set(xscale="log", xlabel=what, ylim=(least, 1.0))
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        left.set_ylabel("test accuracy")
        right.legend(fontsize=8)


def _up_mb(curve: RunCurve) -> np.ndarray:
    return curve.up_bytes / 1e6


def _down_mb(curve: RunCurve) -> np.ndarray:
    return curve.down_bytes / 1e6


def _seconds(curve: RunCurve) -> np.ndarray:
    return curve.elapsed_s
