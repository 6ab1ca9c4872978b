"""The parts of a report: tables of what was measured, with the plots beside them."""

from collections.abc import Sequence
from pathlib import Path

from edge_coordinator.experiments.bounds import Observed, exactly, mean, over_seeds
from edge_coordinator.experiments.cuts import CutCost
from edge_coordinator.experiments.groupings import SPREADS, GroupingStudies
from edge_coordinator.experiments.plots import (
    plot_accuracy,
    plot_bars,
    plot_groupings,
    plot_latency,
    plot_phases,
)
from edge_coordinator.experiments.results import (
    SMOOTHED_OVER,
    WITHIN_POINTS,
    Milestone,
    Runs,
    converged,
    mean_round_s,
    reached,
)
from edge_coordinator.experiments.tables import (
    gigaflop,
    megabytes,
    percent,
    seconds,
    table,
    whole,
    write_runs,
    write_table,
)
from edge_coordinator.formatting import amount


def methods_table(runs: Runs, *, target: float) -> str:
    """A row for each variant: latency, accuracy, and what the target cost."""
    return table(methods_header(target), methods_rows(runs, target=target))


def methods_header(target: float) -> tuple[str, ...]:
    """The columns of that table."""
    return (
        *("", "round (s)", "final accuracy", f"rounds to {target:.0%}", f"seconds to {target:.0%}"),
        *(f"MB to {target:.0%}", f"GFLOP of a device to {target:.0%}"),
    )


def methods_rows(runs: Runs, *, target: float) -> list[list[str]]:
    """The cells of that table."""
    rows, missed = [], "not reached"
    for label, own in runs.items():
        hits = [reached(run, target) for run in own]
        rows.append(
            [
                label,
                seconds(mean_round_s(own)),
                over_seeds(exactly([run.final_accuracy for run in own]), percent, missing="none"),
                over_seeds(parts_of(hits, "round"), whole, missing=missed),
                over_seeds(parts_of(hits, "elapsed_s"), seconds, missing=missed),
                over_seeds(parts_of(hits, "num_bytes"), megabytes, missing=missed),
                over_seeds(parts_of(hits, "device_flop"), gigaflop, missing=missed),
            ]
        )
    return rows


def convergence_table(runs: Runs) -> str:
    """A row for each variant: when its accuracy stayed near its best."""
    rows = []
    for label, own in runs.items():
        events = [converged(run) for run in own]
        rows.append(
            [
                label,
                over_seeds(parts_of(events, "round"), whole, missing="not yet"),
                over_seeds(parts_of(events, "elapsed_s"), seconds, missing="not yet"),
            ]
        )
    header = ("", "converged in round", "after seconds")
    return table(header, rows) + (
        f"\nConverged: the first evaluation from which the smoothed test accuracy (the mean of "
        f"the last {SMOOTHED_OVER} evaluations) stays within {100 * WITHIN_POINTS:g} point of its "
        "best, or better. Not yet: the run's last tenth still rose, or its end lay below its "
        "best; the figures are then the least that it can take.\n"
    )


def rounds_table(runs: Runs) -> str:
    """A row for each variant: what one round takes of the link and of a device."""
    rows = []
    for label, own in runs.items():
        row = own[0].rounds[-1]
        rows.append(
            [
                label,
                megabytes(row.up_bytes),
                megabytes(row.down_bytes),
                megabytes(row.table_up_bytes + row.table_down_bytes),
                amount(row.device_flop),
            ]
        )
    header = (
        *("one round", "MB up, as frames", "MB down, as frames", "MB by the cost table"),
        "FLOP of each device",
    )
    return table(header, rows)


def training_part(folder: Path, runs: Runs, *, target: float, until_s: float | None) -> str:
    """Tables, CSV files and plots of what was trained."""
    write_runs(folder / "runs.csv", runs, target=target)
    plot_accuracy(folder / "accuracy.png", runs, target=target, until_s=until_s)
    plot_latency(folder / "latency.png", runs)
    plot_phases(folder / "phases.png", runs)
    _plot_target(folder / "target.png", runs, target=target)
    return "\n".join(
        [
            "## Accuracy, seconds and bytes\n",
            methods_table(runs, target=target),
            "Means over the seeds, and between which they lie. Seconds are simulated; MB (10^6) "
            "are all devices' frames up and down, headers included.\n",
            convergence_table(runs),
            "![accuracy over rounds and over simulated time](accuracy.png)\n",
            f"![time, bytes and device work to {target:.0%}](target.png)\n",
            "## A round\n",
            rounds_table(runs),
            "![latency of each round](latency.png)\n",
            "![where a round's seconds go](phases.png)\n",
        ]
    )


def groupings_part(folder: Path, groupings: GroupingStudies) -> str:
    """What planning buys, against the spread of the devices' states."""
    studies, parts = groupings.studies, ["## What planning buys\n"]
    if not studies:
        return "\n".join([*parts, f"{groupings.optimum}\n"])
    rows: list[list[object]] = []
    for study in studies:
        header = ("mean round (s) at a spread of", *(f"{100 * s:.0f} %" for s in SPREADS))
        cells = [
            [name, *(seconds(each.mean_s) for each in row)] for name, row in study.latencies.items()
        ]
        parts += [f"{study.title}:\n", table(header, cells)]
        rows += [
            [study.title, name, spread, each.mean_s, each.low_s, each.high_s]
            for name, row in study.latencies.items()
            for spread, each in zip(SPREADS, row, strict=True)
        ]
    header = ("devices", "grouping", "spread", "mean_s", "percentile_5_s", "percentile_95_s")
    write_table(folder / "groupings.csv", header, rows)
    panels = [(study.title, study.means_s) for study in studies]
    plot_groupings(folder / "groupings.png", SPREADS, panels)
    parts += [
        "Every device's speed and rates are drawn anew in each round, log-normal around the "
        "scenario's means, with the relative standard deviation on the axis (the mean of a speed "
        "stays, so mean seconds grow with the spread). All groupings meet the same draws. "
        f"{groupings.optimum}\n",
        "![round latency of each grouping against the spread](groupings.png)\n",
    ]
    return "\n".join(parts)


def cuts_part(folder: Path, tables: Sequence[tuple[str, str, Sequence[CutCost]]]) -> str:
    """The cost of every cut layer; each table has a title and a file name."""
    parts = [
        "## The cost of every cut layer\n",
        "With clusters in turn, as CPSL has them, planned at each cut; mean over states drawn from "
        "the scenario. The last row is the whole network on the devices, and the loss there too, "
        "as in federated averaging: only models travel.\n",
    ]
    for title, name, costs in tables:
        header = ("cut after", "round (s)", "a device's MB", "its MFLOP", "its memory (MB)")
        rows = [
            [
                each.name,
                "does not fit" if each.round_s is None else seconds(each.round_s),
                megabytes(each.device_bytes),
                f"{each.device_flop / 1e6:,.3g}"
                if each.device_flop < 1e9
                else f"{each.device_flop / 1e6:.0f}",
                megabytes(each.device_memory_bytes),
            ]
            for each in costs
        ]
        parts += [f"{title}:\n", table(header, rows)]
        parts += [f"{each.name}: {each.infeasible}.\n" for each in costs if each.infeasible]
        _write_cuts(folder, name, costs)
        parts.append(f"![what each cut costs]({name}.png)\n")
    return "\n".join(parts)


def _write_cuts(folder: Path, name: str, costs: Sequence[CutCost]) -> None:
    """The figures behind a table of cuts, and their plot."""
    write_table(
        folder / f"{name}.csv",
        ("cut", "layer", "round_s", "device_bytes", "device_flop", "device_memory_bytes"),
        [
            [c.cut, c.name, c.round_s, c.device_bytes, c.device_flop, c.device_memory_bytes]
            for c in costs
        ],
    )
    plot_bars(
        folder / f"{name}.png",
        [each.name for each in costs],
        [
            ("latency of a round (s)", [each.round_s for each in costs]),
            ("bytes of a device in a round (MB)", [c.device_bytes / 1e6 for c in costs]),
            ("work of a device in a round (MFLOP)", [c.device_flop / 1e6 for c in costs]),
        ],
        one_colour=True,
        missing="does not fit",
    )


def _plot_target(path: Path, runs: Runs, *, target: float) -> None:
    """Compare what the target cost, by means over the seeds; none where a seed missed it."""
    hits = {label: [reached(run, target) for run in own] for label, own in runs.items()}

    def means(scale: float, part: str) -> list[float | None]:
        return [_exact_mean(parts_of(own, part, scale=scale)) for own in hits.values()]

    plot_bars(
        path,
        list(runs),
        [
            (f"simulated time to {target:.0%} (s)", means(1.0, "elapsed_s")),
            (f"bytes to {target:.0%} (MB, all devices)", means(1e6, "num_bytes")),
            (f"work of a device to {target:.0%} (GFLOP)", means(1e9, "device_flop")),
        ],
        missing="not reached",
    )


def parts_of(
    events: Sequence[Milestone | None], part: str, *, scale: float = 1.0
) -> list[Observed | None]:
    """One figure of each event; None where nothing was evaluated."""
    return [
        None if event is None else Observed(getattr(event, part) / scale, is_bound=event.is_bound)
        for event in events
    ]


def _exact_mean(values: Sequence[Observed | None]) -> float | None:
    known = [value for value in values if value is not None]
    return None if not known or mean(known).is_bound else mean(known).value
