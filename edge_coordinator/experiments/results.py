"""What a trained run is remembered by, and the figures that a comparison takes from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from profiles.units import Floats

if TYPE_CHECKING:  # Figures are taken and told of without PyTorch.
    from edge_coordinator.simulation.simulation import SimulatedRound

SMOOTHED_OVER = 5
"""Evaluations that a smoothed accuracy is the mean of: the last ones."""
WITHIN_POINTS = 0.01
"""Converged: from here on the smoothed accuracy stays this close to its best, or better."""


@dataclass(frozen=True)
class RoundRow:
    """One round of one run, in plain numbers."""

    round: int
    elapsed_s: float
    round_s: float
    train_loss: float
    test_loss: float | None
    test_accuracy: float | None
    up_bytes: int
    down_bytes: int
    table_up_bytes: float
    table_down_bytes: float
    device_flop: float
    num_devices: int
    phase_s: tuple[float, ...]

    @classmethod
    def of(cls, done: "SimulatedRound") -> "RoundRow":
        """Take what a comparison needs of a simulated round."""
        report, costs = done.report, done.costs
        return cls(
            round=report.round,
            elapsed_s=report.elapsed_s,
            round_s=report.round_s,
            train_loss=report.train_loss if report.train_loss is not None else np.nan,
            test_loss=report.test_loss,
            test_accuracy=report.test_accuracy,
            up_bytes=report.up_bytes,
            down_bytes=report.down_bytes,
            table_up_bytes=costs.table_up_bytes,
            table_down_bytes=costs.table_down_bytes,
            device_flop=costs.device_flop,
            num_devices=report.num_devices,
            phase_s=tuple(costs.phase_s.tolist()),
        )


@dataclass(frozen=True)
class TrainedRun:
    """One variant of a comparison, trained with one seed."""

    label: str
    seed: int
    rounds: tuple[RoundRow, ...]
    final_accuracy: float | None
    """Of the last model, on the whole test set or on what the devices hold out; None where the
    labels are no classes."""


Runs = Mapping[str, Sequence[TrainedRun]]
"""Label of a variant to its runs, one a seed."""


@dataclass(frozen=True)
class Milestone:
    """When a run got somewhere, and what it had cost by then.

    Where it ended too early, this is the least that getting there can have taken.
    """

    round: int
    elapsed_s: float
    num_bytes: int
    """Up and down, of all devices together, as frames travel."""
    device_flop: float
    """Of each device."""
    is_bound: bool
    """Whether the run ended too early."""


def evaluated(run: TrainedRun) -> tuple[list[RoundRow], Floats]:
    """Find the rounds that were evaluated, and their accuracies, [evaluation]."""
    rows = [row for row in run.rounds if row.test_accuracy is not None]
    return rows, np.array([row.test_accuracy for row in rows], dtype=np.float64)


def smoothed(accuracies: Floats) -> Floats:
    """Average each evaluation with those just before it, [evaluation]."""
    means = [accuracies[max(0, end - SMOOTHED_OVER) : end].mean() for end in _ends(accuracies)]
    return np.array(means)


def reached(run: TrainedRun, accuracy: float) -> Milestone | None:
    """When an evaluation first gave this accuracy; None if nothing was evaluated."""
    rows, accuracies = evaluated(run)
    if not rows:
        return None
    hits = np.flatnonzero(accuracies >= accuracy)
    return _at(run, rows[hits[0]], is_bound=False) if hits.size else _end(run)


def converged(run: TrainedRun) -> Milestone | None:
    """When the smoothed accuracy came within a point of its best, to stay.

    A bound, if the run ended outside or was still rising. How ever it had gone on, its best could
    only have become better, so that it would not have converged sooner than by what is known of
    it. None if nothing was evaluated.
    """
    rows, accuracies = evaluated(run)
    if not rows:
        return None
    curve = smoothed(accuracies)
    outside = np.flatnonzero(curve < curve.max() - WITHIN_POINTS)
    first = int(outside[-1]) + 1 if outside.size else 0
    return _at(run, rows[first], is_bound=still_rising(run)) if first < len(rows) else _end(run)


def still_rising(run: TrainedRun) -> bool:
    """Whether a run ended too early to speak of convergence: its best tenth is its last."""
    rows, accuracies = evaluated(run)
    curve = smoothed(accuracies)
    tail = max(len(rows) // 10, 1)
    before = curve[:-tail].max(initial=0.0)
    return bool(curve[-tail:].max(initial=0.0) > before + WITHIN_POINTS / 2)


def best_smoothed(run: TrainedRun) -> float:
    """Highest smoothed accuracy."""
    _, accuracies = evaluated(run)
    return float(smoothed(accuracies).max()) if accuracies.size else float("nan")


def mean_round_s(runs: Sequence[TrainedRun]) -> float:
    """Mean seconds of a round over some runs."""
    return float(np.mean([row.round_s for run in runs for row in run.rounds]))


def mean_phase_s(runs: Sequence[TrainedRun]) -> Floats:
    """Mean seconds of each phase that a round waits for, [phase]."""
    means: Floats = np.mean([row.phase_s for run in runs for row in run.rounds], axis=0)
    return means


def _end(run: TrainedRun) -> Milestone:
    return _at(run, run.rounds[-1], is_bound=True)


def _at(run: TrainedRun, last: RoundRow, *, is_bound: bool) -> Milestone:
    rows = [row for row in run.rounds if row.round <= last.round]
    return Milestone(
        round=last.round,
        elapsed_s=last.elapsed_s,
        num_bytes=sum(row.up_bytes + row.down_bytes for row in rows),
        device_flop=sum(row.device_flop for row in rows),
        is_bound=is_bound,
    )


def _ends(values: Floats) -> range:
    return range(1, len(values) + 1)
