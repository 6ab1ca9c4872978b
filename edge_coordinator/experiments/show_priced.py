"""The rounds of a recorded run beside what they would have taken, for people and for programs."""

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType

from edge_coordinator.experiments.priced_rounds import PricedRound, would_have_taken_s
from edge_coordinator.experiments.show import shown_table
from edge_coordinator.formatting import short_seconds
from edge_coordinator.job.job import Job
from edge_coordinator.planning.plan import Plan

_MOST_ROWS = 24
"""Of more rounds the first and the last ones are shown."""
_HEADER = ("round", "took", "its plan", "this plan", "cut after", "clusters")


def shown_rounds(rounds: Sequence[PricedRound], job: Job) -> list[RenderableType]:
    """Show each round with both plans' seconds, then what they add up to."""
    half = _MOST_ROWS // 2
    listed = list(rounds) if len(rounds) <= _MOST_ROWS else [*rounds[:half], *rounds[-half:]]
    rows = [_row(each, job) for each in listed]
    if len(listed) < len(rounds):
        rows.insert(half, ("…", *("",) * (len(_HEADER) - 1)))
    return [shown_table(_HEADER, rows), "", *_sums(rounds)]


def priced_document(rounds: Sequence[PricedRound], job: Job) -> dict[str, Any]:
    """Give the same as JSON has it, with the devices of each cluster."""
    priced = [_price(each) for each in rounds]
    known = [price for price in priced if price is not None]
    predicted = [each.predicted_s for each in rounds if each.predicted_s is not None]
    return {
        "rounds": [_round(each, job) for each in rounds],
        "took_s": sum(each.took_s for each in rounds),
        "predicted_s": sum(predicted) if len(predicted) == len(rounds) else None,
        "priced_s": sum(known) if len(known) == len(rounds) else None,
        "would_have_taken_s": would_have_taken_s(rounds),
    }


def _row(priced: PricedRound, job: Job) -> tuple[str, ...]:
    price = _price(priced)
    own = "-" if priced.predicted_s is None else short_seconds(priced.predicted_s)
    first = (str(priced.round), short_seconds(priced.took_s), own)
    if priced.plan is None or price is None:
        return (*first, "none", priced.why_none, "")
    return (*first, short_seconds(price), job.cut_name(priced.plan.cut), _sizes(priced.plan))


def _sums(rounds: Sequence[PricedRound]) -> list[str]:
    took_s = sum(each.took_s for each in rounds)
    own = [each.predicted_s for each in rounds if each.predicted_s is not None]
    priced = [price for each in rounds if (price := _price(each)) is not None]
    lines = [f"{len(rounds)} rounds took {short_seconds(took_s)}; their plans said "
             f"{short_seconds(sum(own))}, these say {short_seconds(sum(priced))}"]  # fmt: skip
    if drawn_j := sum(sum(each.plan.joules.values()) for each in rounds if each.plan):
        lines.append(f"as these plan them the devices draw {drawn_j:.3g} J")
    if none := len(rounds) - len(priced):
        lines.append(f"{none} of them would have had no plan: {_why(rounds)}")
    would_s = would_have_taken_s(rounds)
    if would_s is not None and took_s > 0:
        change = would_s / took_s - 1
        lines.append(
            f"so they would have taken about {short_seconds(would_s)} ({change:+.1%}), if "
            "predictions are off by as much"
        )
    return lines


def _why(rounds: Sequence[PricedRound]) -> str:
    return next(each.why_none for each in rounds if each.plan is None)


def _price(priced: PricedRound) -> float | None:
    return priced.plan.predicted_s if priced.plan is not None else None


def _sizes(plan: Plan) -> str:
    return ", ".join(
        f"{len(each.devices)}" + (f" in {each.micro_batches}" if each.micro_batches > 1 else "")
        for each in plan.clusters
    )


def _round(priced: PricedRound, job: Job) -> dict[str, Any]:
    plan = priced.plan
    return {
        "round": priced.round,
        "took_s": priced.took_s,
        "predicted_s": priced.predicted_s,
        "priced_s": _price(priced),
        "why_none": priced.why_none or None,
        "priced_j": sum(plan.joules.values()) if plan and plan.joules else None,
        "cut": plan.cut if plan else None,
        "cut_layer": job.cut_name(plan.cut) if plan else None,
        "codec": plan.codecs.smashed if plan and plan.codecs else None,
        "clusters": [
            {
                "devices": each.devices,
                "shares": each.shares,
                "micro_batches": each.micro_batches,
                "phi": each.phi,
                "batch_sizes": each.batch_sizes,
                "predicted_s": each.predicted_s,
            }
            for each in (plan.clusters if plan else ())
        ],
        "left_out": dict(plan.left_out) if plan else {},
    }
