"""A site as a person sees it: what happens, the plan and its reasons, a row for each device."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from edge_coordinator.formatting import amount, cut_words, duration, figure_in_words, figure_of
from edge_coordinator.monitor.state import DeviceView, Presence, SiteState
from edge_coordinator.monitor.tables import DeviceTable, more_devices, seconds_of_devices
from runtime.wire.fields import as_words
from runtime.wire.published import CoordinatorStatus, PlanReport, RoundReport

_MIN_ROWS = 3
_MOST_REASONS = 3
_MOST_REMARKS = 2


class LiveSite:
    """Shows a site on a terminal: once, or again and again on a screen of its own."""

    def __init__(self, console: Console, *, broker: str) -> None:
        self._console = console
        self._broker = broker
        self._live = Live(console=console, screen=True, auto_refresh=False)

    def show(self, state: SiteState) -> None:
        """Put a state in the place of the one before, until `close`."""
        self._live.start()
        screen = site_screen(
            state, broker=self._broker, console=self._console, num_lines=self._console.height
        )
        self._live.update(screen, refresh=True)

    def print(self, state: SiteState) -> None:
        """Print a state, as long as it may be."""
        self._console.print(
            site_screen(state, broker=self._broker, console=self._console, num_lines=None)
        )

    def close(self) -> None:
        """Give the terminal back as it was."""
        self._live.stop()


def site_screen(
    state: SiteState, *, broker: str, console: Console, num_lines: int | None
) -> RenderableType:
    """Lay a site out for the width of `console`.

    In `num_lines` the plan gets short if the devices need the room; then come as many devices
    as fit.
    """
    above = Group(*_progress(state, broker=broker))
    below = Group(*_below(state))
    everyone = _devices(state.devices, width=console.width)
    needed = _height(console, above, everyone, below)
    if num_lines is None or needed <= num_lines:
        return Group(above, everyone, below)
    below = Group(*_below_in_short(state))
    missing = _height(console, above, everyone, below) - num_lines
    if missing <= 0:
        return Group(above, everyone, below)
    missing += 1  # The line that says what is missing.
    lines_per_device = DeviceTable(state.devices, width=console.width).lines_per_device
    num_shown = max(_MIN_ROWS, len(state.devices) - -(-missing // lines_per_device))
    shown, hidden = state.devices[:num_shown], state.devices[num_shown:]
    return Group(above, _devices(shown, width=console.width), more_devices(hidden), below)


def _height(console: Console, *parts: RenderableType) -> int:
    return sum(len(console.render_lines(part, pad=False)) for part in parts)


def _devices(devices: Sequence[DeviceView], *, width: int) -> RenderableType:
    return DeviceTable(devices, width=width) if devices else Group()


# Above the devices: what happens


def _progress(state: SiteState, *, broker: str) -> list[Text]:
    counts = ", ".join(f"{state.count(p)} {p}" for p in Presence if state.count(p)) or "none"
    lines = [
        Text.assemble(("site ", "dim"), (state.site, "bold"), f" at {broker}"),
        Text.assemble(("devices ", "dim"), counts),
    ]
    if state.connection_lost:
        lost = f"the broker is out of reach ({state.connection_lost}); trying again"
        lines.append(Text(lost, style="bold red"))
    if state.is_empty:
        lines.append(Text("nothing here yet: waiting for devices or a coordinator"))
        return lines
    lines.append(_coordinator(state.coordinator, state.at_unix_s))
    if state.round is not None:
        lines.append(_round(state.round, state.evaluated, is_old=state.round.run != state.run))
    return lines


def _coordinator(status: CoordinatorStatus | None, now_s: float) -> Text:
    label = ("coordinator ", "dim")
    if status is None:
        return Text.assemble(label, ("none", "yellow"))
    if status.state == "offline":
        return Text.assemble(label, ("offline", "red"))
    since = f", for {duration(now_s - status.since_unix_s)}"
    phase = f": {status.phase}" if status.phase else ""
    return Text.assemble(label, ("online", "green"), f"{since}{phase}")


def _round(report: RoundReport, evaluated: RoundReport | None, *, is_old: bool) -> Text:
    parts = [_number("loss", report.train_loss, "{:.4f}")]
    if evaluated is not None and evaluated.run == report.run:
        figure = figure_of(evaluated)
        when = "" if evaluated.round == report.round else f" (round {evaluated.round})"
        parts += [
            _number("test loss", evaluated.test_loss, "{:.4f}"),
            " ".join((figure[0], figure_in_words(*figure))) + when if figure else "",
        ]
    parts += [seconds_of(report)]
    parts += [f"{amount(report.up_bytes)}B up, {amount(report.down_bytes)}B down"]
    parts += [f"{sum(report.drawn_j.values()):.3g} J"] if report.drawn_j else []
    label = f"round {report.round} of an earlier run " if is_old else f"round {report.round} done "
    return Text.assemble((label, "dim"), ", ".join(part for part in parts if part))


def seconds_of(report: RoundReport) -> str:
    """Say how long a round took, and what was predicted."""
    took = f"{report.round_s:.3g} s"
    if report.predicted_round_s is None:
        return took
    error = report.relative_error
    by = f", {error:+z.1%}" if error is not None else ""
    return f"{took} ({report.predicted_round_s:.3g} s predicted{by})"


def _number(name: str, value: float | None, form: str) -> str:
    return "" if value is None else f"{name} {form.format(value)}"


# Below the devices: the plan with its reasons, what is amiss


def _below(state: SiteState) -> list[RenderableType]:
    seconds = seconds_of_devices(state.devices)
    return [*_plan(state), *([seconds] if seconds else []), *_remarks(state), *_malformed(state)]


def _below_in_short(state: SiteState) -> list[RenderableType]:
    remarks = _remarks(state)
    if len(remarks) > _MOST_REMARKS:
        more = f"and {len(remarks) - _MOST_REMARKS} more such remarks"
        remarks[_MOST_REMARKS:] = [Text(more, style="yellow")]
    lines = [*_plan(state)[:_MOST_REASONS], *remarks, *_malformed(state)]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return list(lines)


def _plan(state: SiteState) -> list[Text]:
    """Say what the plan is, then why, the most important first."""
    plan = state.plan
    if plan is None:
        return []
    label = f"plan of round {plan.round} " + ("of an earlier run " if plan.run != state.run else "")
    predicted = f"; {plan.predicted_s:.3g} s predicted" if plan.predicted_s is not None else ""
    sizes = ", ".join(str(len(cluster.devices)) for cluster in plan.clusters)
    reasons = {
        label: f"{plan.method}, cut after {cut_words(plan)}, clusters of {sizes}{predicted}",
        "why ": plan.reason,
        "changed ": plan.changed,
        "else ": _else(plan),
        "assumed ": "; ".join(f"{device}: {what}" for device, what in plan.assumed.items()),
    }
    return [
        Text.assemble((name, "dim"), as_words(reason)) for name, reason in reasons.items() if reason
    ]


def _remarks(state: SiteState) -> list[Text]:
    said = [f"{view.device} {view.presence}: {view.why}" for view in state.devices if view.why]
    return [Text(line, style="yellow") for line in said]


def _malformed(state: SiteState) -> list[Text]:
    if not state.num_malformed:
        return []
    counted = f"malformed messages: {state.num_malformed}, the last on {state.last_malformed}"
    return [Text(counted, style="red")]


def _else(plan: PlanReport) -> str:
    """Say what the round would have taken otherwise."""
    other = plan.alternatives
    if other is None:
        return ""
    is_shared_out = any(cluster.batch_sizes for cluster in plan.clusters)
    ways = [
        f"{other.random_clusters_s:.3g} s with random clusters",
        f"{other.random_equal_shares_s:.3g} s with equal shares too",
        f"{other.sorted_clusters_s:.3g} s with sorted clusters"
        + " (all with equal mini-batches)" * is_shared_out,
    ]
    cut = other.best_other_cut
    if cut is not None and cut.round_s is not None:
        ways.append(f"{cut.round_s:.3g} s cut after {cut.cut_layer}")
    return ", ".join(ways)
