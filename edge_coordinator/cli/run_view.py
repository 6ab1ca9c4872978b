"""What a person sees of a run."""

import time
from collections import deque
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from edge_coordinator.cli.plan_lines import plan_lines
from edge_coordinator.formatting import amount, figure_in_words, figure_of
from edge_coordinator.monitor.tables import seconds_table
from edge_coordinator.run import events as run_events
from runtime.wire.published import PlanReport, RoundReport

_ROUNDS_SHOWN = 6


class RunView:
    """A live view on a terminal; on anything else a line for each round."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._is_live = console.is_terminal
        self._status = ""
        self._plan: PlanReport | None = None
        self._seconds: RenderableType | None = None
        self._rounds: deque[RoundReport] = deque(maxlen=_ROUNDS_SHOWN)
        self._bar = Progress(
            TextColumn("[bold]round"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            get_time=clock,
        )
        self._task = self._bar.add_task("rounds", total=None)
        self._live = Live(
            get_renderable=self.__rich__, console=console, refresh_per_second=8, transient=True
        )

    def __enter__(self) -> "RunView":
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def tell(self, progress: run_events.Progress) -> None:
        """Show what happens now."""
        match progress:
            case run_events.Waiting(what):
                self._say(f"waiting: {what}")
            case run_events.RoundPlanned(plan, num_rounds):
                self._bar.update(self._task, total=num_rounds)
                self._round_planned(plan, num_rounds)
            case run_events.ClusterStarted(round_, cluster, num_clusters, devices):
                self._status = (
                    f"round {round_}: cluster {cluster + 1} of {num_clusters} trains "
                    f"({_some(devices)})"
                )
            case run_events.Evaluating(round_):
                self._status = f"round {round_}: evaluating"
            case run_events.RoundDone(report):
                self._round_done(report)
            case run_events.Stopped():
                self._say(progress.words)

    def _round_planned(self, plan: PlanReport, num_rounds: int) -> None:
        is_first, self._plan = self._plan is None, plan
        if plan.changed:
            self._print(f"round {plan.round}: {plan.changed}")
        if is_first and not self._is_live:
            for line in (Text(f"rounds {num_rounds}"), *plan_lines(plan)):
                self._print(line)

    def _round_done(self, report: RoundReport) -> None:
        self._rounds.append(report)
        self._bar.update(self._task, completed=report.round)
        if self._plan is not None and self._plan.predicted:
            predicted, measured = self._plan.predicted.values(), report.measured.values()
            self._seconds = seconds_table(predicted=list(predicted), measured=list(measured))
        for device, reason in report.lost.items():
            self._print(f"round {report.round}: {device} was left out: {reason}")
        if report.went_back_to:
            rounds = ", then ".join(map(str, report.went_back_to))
            why = f" ({report.spoilt})" if report.spoilt else ""
            self._print(f"round {report.round}: spoilt{why}: went back to round {rounds}")
        if not self._is_live:
            cells = [f"{name} {cell}" for name, cell in _cells(report).items()]
            self._print(", ".join(cells))

    def _print(self, what: str | Text) -> None:
        """Print above what is live; what peers said is no markup."""
        self._console.print(what, soft_wrap=not self._is_live, markup=False)

    def _say(self, text: str) -> None:
        if text != self._status and not self._is_live:
            self._print(text)
        self._status = text

    def __rich__(self) -> RenderableType:
        table = Table(box=None, header_style="dim", pad_edge=False)
        rows = [_cells(report) for report in self._rounds]
        names = max((list(row) for row in rows), key=len, default=[])
        for name in names:
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(*(row.get(name, "-") for name in names))
        status = Text(self._status, style="dim", overflow="ellipsis", no_wrap=True)
        return Group(table, *self._planned(), self._bar, status)

    def _planned(self) -> list[RenderableType]:
        """The plan that holds, with its reasons; then the last round, predicted and measured."""
        plan = plan_lines(self._plan) if self._plan else []
        return [*plan, *([self._seconds] if self._seconds else [])]


def _cells(report: RoundReport) -> dict[str, str]:
    """What to show of a round, by column; a prediction only where there was one."""
    predicted = report.predicted_round_s
    return {
        "round": str(report.round),
        "loss": _or_dash(report.train_loss, "{:.4f}"),
        "test loss": _or_dash(report.test_loss, "{:.4f}"),
        **_metric_cell(report),
        **({"cut": report.cut_layer} if predicted is not None else {}),
        "seconds": f"{report.round_s:.2f}",
        **({"predicted": f"{predicted:.2f}"} if predicted is not None else {}),
        "up": f"{amount(report.up_bytes)}B",
        "down": f"{amount(report.down_bytes)}B",
        **({"energy": f"{sum(report.drawn_j.values()):.3g}J"} if report.drawn_j else {}),
    }


def _metric_cell(report: RoundReport) -> dict[str, str]:
    figure = figure_of(report)
    return {figure[0]: figure_in_words(*figure)} if figure else {}


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _some(devices: tuple[str, ...], most: int = 6) -> str:
    more = f" and {len(devices) - most} more" if len(devices) > most else ""
    return ", ".join(devices[:most]) + more
