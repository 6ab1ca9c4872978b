"""What a run keeps in memory of its rounds: enough for curves, and no more however long it runs."""

from edge_coordinator.job.standing import Point
from runtime.wire.published import RoundReport

MAX_POINTS = 10_000


class Curve(list[Point]):
    """Points in the order of their rounds; of very many every other one is forgotten."""

    def add(self, report: RoundReport) -> None:
        """Add the next round."""
        self.append(Point.of(report))
        if len(self) > MAX_POINTS:
            del self[1:-1:2]
