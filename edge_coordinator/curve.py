"""What a run keeps in memory of its rounds: enough for curves, and no more however long it runs."""

from dataclasses import dataclass

from runtime.wire.published import RoundReport

MAX_POINTS = 10_000


@dataclass(frozen=True, slots=True)
class Point:
    """One round of a run."""

    round: int
    elapsed_s: float
    train_loss: float | None
    test_loss: float | None
    test_accuracy: float | None

    @classmethod
    def of(cls, report: RoundReport) -> "Point":
        """Take what is drawn of a report."""
        return cls(
            report.round,
            report.elapsed_s,
            report.train_loss,
            report.test_loss,
            report.test_accuracy,
        )


class Curve(list[Point]):
    """Points in the order of their rounds; of very many every other one is forgotten."""

    def add(self, report: RoundReport) -> None:
        """Add the next round."""
        self.append(Point.of(report))
        if len(self) > MAX_POINTS:
            del self[1:-1:2]
