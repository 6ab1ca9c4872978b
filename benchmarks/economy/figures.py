"""Rows of what variants cost and give, with the spread over seeds, and beside the baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.economy.runs import RunCurve

LAST = 5
"""Rounds at the end whose mean accuracy is a run's final one: a single one strays."""


@dataclass(frozen=True)
class VariantFigures:
    """One variant, by seed; NaN where a run never reached the target."""

    seconds: Sequence[float]
    """To the target."""
    up_mb: Sequence[float]
    """To the target."""
    rounds: Sequence[float]
    """To the target."""
    final: Sequence[float]
    prediction_error: float
    """Median over all rounds of all seeds of its absolute value."""

    @classmethod
    def of(cls, curves: Sequence[RunCurve], *, target: float) -> "VariantFigures":
        """Work them out from the runs of all seeds."""
        reached = [(curve, curve.until(target)) for curve in curves]
        errors = np.concatenate([curve.prediction_error for curve in curves])
        return cls(
            seconds=[_at(curve.elapsed_s, place) for curve, place in reached],
            up_mb=[_at(curve.up_bytes, place) / 1e6 for curve, place in reached],
            rounds=[np.nan if place is None else place + 1 for _, place in reached],
            final=[float(curve.accuracy[-LAST:].mean()) for curve in curves],
            prediction_error=_median(np.abs(errors)),
        )


def lines(figures: Mapping[str, VariantFigures], *, baseline: str, target: float) -> list[str]:
    """Give a table in 80 columns; ratios are of the means, each of one run's own seeds.

    Where a seed never reached the target there is no mean: it says how many did.
    """
    base = figures[baseline]
    out = [
        f"to {target:.0%}{'seconds':>17}{'':>7}{'up MB':>13}{'':>7}{'rounds':>8}"
        f"{'final %':>13}{'pred.':>8}"
    ]
    for name, each in figures.items():
        out.append(
            f"{name:<13}{_spread(each.seconds, 1):>12}{_ratio(each.seconds, base.seconds):>6}"
            f"{_spread(each.up_mb, 2):>14}{_ratio(each.up_mb, base.up_mb):>6}"
            f"{_mean(each.rounds):>8}"
            f"{_spread([100 * f for f in each.final], 2):>14}{_error(each):>7}"
        )
    return out


def phi_lines(curves: Mapping[str, Sequence[RunCurve]], *, baseline: str) -> list[str]:
    """Give what a whole run sent down, its seconds and its final accuracy, in 80 columns.

    MB are those that the coordinator sent: what is for all devices of a cluster counts once.
    """
    out = [f"whole run{'down MB':>15}{'':>7}{'seconds':>13}{'':>7}{'final %':>15}"]
    base = curves[baseline]
    for name, seeds in curves.items():
        columns = []
        for measure, unit in (("down_bytes", 1e6), ("elapsed_s", 1.0)):
            own, its = ([getattr(c, measure)[-1] / unit for c in each] for each in (seeds, base))
            columns.append(f"{_spread(own, 2):>14}{_ratio(own, its):>6}")
        final = _spread([100 * float(c.accuracy[-LAST:].mean()) for c in seeds], 2)
        out.append(f"{name:<10}{''.join(columns)}{final:>16}")
    return out


def _median(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else float("nan")


def _error(each: VariantFigures) -> str:
    return "" if np.isnan(each.prediction_error) else f"{each.prediction_error:.0%}"


def _at(values: np.ndarray, place: int | None) -> float:
    return float("nan") if place is None else float(values[place])


def _spread(values: Sequence[float], digits: int) -> str:
    """The mean, and the largest distance of a seed from it."""
    if reached := _reached(values):
        return reached
    mean = float(np.mean(values))
    return f"{mean:.{digits}f}±{np.abs(np.array(values) - mean).max():.{digits}f}"


def _ratio(values: Sequence[float], base: Sequence[float]) -> str:
    if _reached(values) or _reached(base):
        return ""
    return f"/{np.mean(base) / np.mean(values):.1f}"


def _mean(values: Sequence[float]) -> str:
    return "" if _reached(values) else f"{np.mean(values):.0f}"


def _reached(values: Sequence[float]) -> str:
    """How many of the seeds have such a figure; nothing if all do."""
    count = int(np.isfinite(values).sum())
    return "" if count == len(values) else f"{count} of {len(values)}" if count else "never"
