"""What the evaluations of a run say so far: its best round, and how long nothing was gained.

It follows from the rounds as they are written down, one after another, and so is the same in a run
that was resumed. Of two rounds the better is the one of the better metric (higher accuracy, where
labels are classes), at equal metric that of lower test loss, and of two equals the earlier. Where
there is no metric the test loss alone says.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from edge_coordinator.formatting import figure_of
from edge_coordinator.job.soundness import UNTRIED, Soundness
from runtime.wire.published import RoundReport

Keep = Literal["best", "last"]
"""Which round's weights are a run's result."""


@dataclass(frozen=True, slots=True)
class Point:
    """One round of a run."""

    round: int
    elapsed_s: float
    train_loss: float | None
    test_loss: float | None
    test_accuracy: float | None
    metric: str = ""
    """What says which of two rounds is better; empty where nothing but the test loss does."""
    test_metric: float | None = None
    lower_is_better: bool = False

    @classmethod
    def of(cls, report: RoundReport) -> "Point":
        """Take what is drawn of a report."""
        return cls(
            report.round,
            report.elapsed_s,
            report.train_loss,
            report.test_loss,
            report.test_accuracy,
            report.metric,
            report.test_metric,
            report.lower_is_better,
        )


@dataclass(frozen=True)
class Standing:
    """Where a run stands after some rounds."""

    best: Point | None = None
    """None before the first evaluation."""
    mark: Point | None = None
    """The last evaluation that gained, by more than the least gain, on the one that did before."""
    num_without_gain: int = 0
    """Evaluations since `mark`."""
    soundness: Soundness = UNTRIED
    """Whether the model was spoilt."""

    def after(self, report: RoundReport, *, least_gain: float) -> "Standing":
        """Take the next round into account; one without an evaluation changes nothing."""
        point = Point.of(report)
        judged = replace(self, soundness=self.soundness.after(report))
        if not is_evaluated(point):
            return judged
        better = self.best is None or _score(point) > _score(self.best)
        standing = replace(judged, best=point) if better else judged
        if self.mark is None or _gain(self.mark, point) > least_gain:
            return replace(standing, mark=point, num_without_gain=0)
        return replace(standing, num_without_gain=self.num_without_gain + 1)


BEGINNING = Standing()
"""Before the first round."""


def is_evaluated(point: Point) -> bool:
    """Whether a round ended with an evaluation."""
    return point.test_accuracy is not None or point.test_loss is not None


def _score(point: Point) -> tuple[float, float]:
    figure, loss = figure_of(point), point.test_loss
    sign = -1.0 if point.lower_is_better else 1.0
    return (sign * figure[1] if figure else -math.inf, -math.inf if loss is None else -loss)


def _gain(before: Point, now: Point) -> float:
    """Of the metric; where there is none, of the test loss."""
    (figure_before, loss_before), (figure, loss) = _score(before), _score(now)
    return figure - figure_before if figure_of(now) is not None else loss - loss_before
