"""The rounds of a run in short: what who comes in the midst of it is told of those before.

A list for each figure with an entry for each round, and what befell the devices. It is bounded
however long a run is: of very many rounds every other one is forgotten, and of the events the
oldest.
"""

from collections import deque
from typing import Any, ClassVar, Literal

from pydantic import Field

from runtime.wire.fields import MAX_REPORT_BYTES, Count, Message, Round, RunId, Token, Words
from runtime.wire.published import PlanReport, RoundReport

MAX_POINTS = 512
MAX_EVENTS = 200
_SIGNIFICANT_DIGITS = 5

EventKind = Literal["replanned", "left_out", "lost", "back", "fault"]


class HistoryEvent(Message):
    """Something that befell a round."""

    round: Round
    kind: EventKind = Field(
        description="left_out: not in the plan; lost: fell out of the round, late or gone; "
        "back: in the plan again"
    )
    device: Token = Field("", description="empty: it concerns all")
    words: Words = Field("", description="why, for people")


class HistoryReport(Message):
    """The rounds of the run so far, retained; all lists have one entry a round."""

    max_bytes: ClassVar[int] = MAX_REPORT_BYTES

    run: RunId
    num_rounds: Count = Field(description="of the whole run; 0 if nobody knows yet")
    round: tuple[Round, ...] = ()
    elapsed_s: tuple[float, ...] = ()
    round_s: tuple[float, ...] = ()
    predicted_round_s: tuple[float | None, ...] = ()
    train_loss: tuple[float | None, ...] = ()
    test_loss: tuple[float | None, ...] = ()
    test_accuracy: tuple[float | None, ...] = Field((), description="fraction right")
    metric: tuple[str, ...] = Field((), description="what test_metric is; empty: not evaluated")
    test_metric: tuple[float | None, ...] = ()
    lower_is_better: tuple[bool, ...] = Field((), description="of the metric")
    up_bytes: tuple[Count, ...] = ()
    down_bytes: tuple[Count, ...] = ()
    num_devices: tuple[Count, ...] = ()
    num_clusters: tuple[Count, ...] = ()
    cut_layer: tuple[str, ...] = ()
    events: tuple[HistoryEvent, ...] = ()


FIGURES = tuple(HistoryReport.model_fields.keys() & RoundReport.model_fields.keys() - {"run"})
"""What is kept of each round."""


class History:
    """Grows by a round after the other."""

    def __init__(self, *, max_points: int | None = MAX_POINTS) -> None:
        """Of a run that is over, all points can be had: then `max_points` is None."""
        self._columns: dict[str, list[Any]] = {name: [] for name in FIGURES}
        self._events: deque[HistoryEvent] = deque(maxlen=MAX_EVENTS if max_points else None)
        self._max_points = max_points
        self._num_rounds = 0
        self._away: set[str] = set()

    def plan(self, plan: PlanReport, num_rounds: int) -> None:
        """Note what a plan changes."""
        self._num_rounds = num_rounds
        if plan.changed:
            self._note(plan.round, "replanned", words=plan.changed)
        for device, reason in plan.left_out.items():
            if device not in self._away:
                self._note(plan.round, "left_out", device, reason)
        planned = {device for cluster in plan.clusters for device in cluster.devices}
        for device in sorted(self._away & planned):
            self._note(plan.round, "back", device)
        self._away = (self._away - planned) | plan.left_out.keys()

    def add(self, report: RoundReport) -> None:
        """Add the next round."""
        for name, column in self._columns.items():
            column.append(_short(getattr(report, name)))
        for device, reason in report.lost.items():
            self._note(report.round, "lost", device, reason)
        for what, count in report.faults.items():
            self._note(report.round, "fault", words=f"{what} ({count})")
        self._away |= report.lost.keys()
        if self._max_points is not None and len(self._columns["round"]) > self._max_points:
            for column in self._columns.values():
                del column[1:-1:2]

    def report(self, run: int) -> HistoryReport:
        """Give it as the message."""
        fields: dict[str, Any] = {name: tuple(column) for name, column in self._columns.items()}
        fields |= {"run": run, "num_rounds": self._num_rounds, "events": tuple(self._events)}
        # What was taken from messages needs no second check, and may be long.
        return HistoryReport.model_construct(None, **fields)

    def _note(self, round_: int, kind: EventKind, device: str = "", words: str = "") -> None:
        self._events.append(HistoryEvent(round=round_, kind=kind, device=device, words=words))


def _short(value: Any) -> Any:  # noqa: ANN401 - a figure of a round
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value
