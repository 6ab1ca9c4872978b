"""What a person sees of a run."""

from collections import deque

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from edge_coordinator import progress as told
from edge_coordinator.amounts import amount
from runtime.messages import RoundReport

_ROUNDS_SHOWN = 8


class RunView:
    """A live view on a terminal; on anything else a line for each round."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._is_live = console.is_terminal
        self._status = ""
        self._rounds: deque[RoundReport] = deque(maxlen=_ROUNDS_SHOWN)
        self._bar = Progress(
            TextColumn("[bold]round"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
        )
        self._task = self._bar.add_task("rounds", total=None)
        self._live = Live(
            get_renderable=self._render, console=console, refresh_per_second=8, transient=True
        )

    def __enter__(self) -> "RunView":
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def tell(self, progress: told.Progress) -> None:
        """Show what happens now."""
        match progress:
            case told.Waiting(what):
                self._say(f"waiting: {what}")
            case told.RoundPlanned(plan, num_rounds):
                self._bar.update(self._task, total=num_rounds)
                if plan.round == 1:
                    self._console.print(
                        f"{plan.method}: cut after {plan.cut_layer}, "
                        f"{len(plan.clusters)} clusters, {num_rounds} rounds"
                    )
            case told.ClusterStarted(round_, cluster, num_clusters, devices):
                self._status = (
                    f"round {round_}: cluster {cluster + 1} of {num_clusters} trains "
                    f"({_some(devices)})"
                )
            case told.Evaluating(round_):
                self._status = f"round {round_}: evaluating"
            case told.RoundDone(report):
                self._round_done(report)

    def _round_done(self, report: RoundReport) -> None:
        self._rounds.append(report)
        self._bar.update(self._task, completed=report.round)
        for device, reason in report.lost.items():
            self._console.print(f"round {report.round}: {device} was left out: {reason}")
        if not self._is_live:
            cells = [f"{name} {cell}" for name, cell in zip(_COLUMNS, _row(report), strict=True)]
            self._console.print(", ".join(cells), soft_wrap=True)

    def _say(self, text: str) -> None:
        if text != self._status and not self._is_live:
            self._console.print(text, soft_wrap=True)
        self._status = text

    def _render(self) -> RenderableType:
        table = Table(box=None, header_style="dim", pad_edge=False)
        for name in _COLUMNS:
            table.add_column(name, justify="right")
        for report in self._rounds:
            table.add_row(*_row(report))
        return Group(table, self._bar, Text(self._status, style="dim", overflow="ellipsis"))


_COLUMNS = ("round", "train loss", "test loss", "accuracy", "seconds", "up", "down")


def _row(report: RoundReport) -> tuple[str, ...]:
    return (
        str(report.round),
        _or_dash(report.train_loss, "{:.4f}"),
        _or_dash(report.test_loss, "{:.4f}"),
        _or_dash(report.test_accuracy, "{:.2%}"),
        f"{report.round_s:.2f}",
        f"{amount(report.up_bytes)}B",
        f"{amount(report.down_bytes)}B",
    )


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _some(devices: tuple[str, ...], most: int = 6) -> str:
    more = f" and {len(devices) - most} more" if len(devices) > most else ""
    return ", ".join(devices[:most]) + more
