"""What the paper's comparison has to show, and whether our runs show it."""

from collections.abc import Sequence

import numpy as np

from edge_coordinator.experiments.bounds import ratio
from edge_coordinator.experiments.paper.results import PaperResults
from edge_coordinator.experiments.results import TrainedRun

METHODS = ("CPSL", "SL", "FL")
_VERDICTS = {True: "holds", False: "DOES NOT HOLD", None: "NOT DECIDED by these runs"}

Claim = tuple[str, bool | None]
"""A sentence, and whether it holds; None if the runs ended too early to tell."""


def claims_part(results: PaperResults) -> str:
    """What the comparison has to show, and whether it does."""
    lines = [f"- {_VERDICTS[holds]}: {claim}" for claim, holds in _claims(results)]
    return (
        "## Claims\n\n"
        "The published latencies of a round are none of them: three rates are calibrated to the "
        "three.\n\n" + "\n".join(lines) + "\n"
    )


def _claims(results: PaperResults) -> list[Claim]:
    return [
        _ratios_stay(results),
        _cpsl_is_faster(results),
        _as_accurate_as_central(results),
        _fl_is_slowest(results),
        _tuned_fl_is_slower(results),
    ]


def _ratios_stay(results: PaperResults) -> Claim:
    spread = results.spread
    sl, fl = (spread[method].mean_s / spread["cpsl"].mean_s for method in ("sl", "fl"))
    claim = (
        f"with a spread of 10 % SL takes at least 3.5 times CPSL's round ({sl:.2f}) and FL at "
        f"least 8 times ({fl:.2f})"
    )
    return claim, sl >= 3.5 and fl >= 8


def _cpsl_is_faster(results: PaperResults) -> Claim:
    part = ratio(results.mean_to_target_s("CPSL"), results.mean_to_target_s("SL"))
    pairs = zip(results.to_target_s("CPSL"), results.to_target_s("SL"), strict=True)
    seeds = ", ".join(ratio(own, other).text("{:.0%}".format) for own, other in pairs)
    claim = (
        f"CPSL reaches {results.target:.0%} in less than half of SL's simulated seconds "
        f"({part.text('{:.0%}'.format)} in the mean; seed by seed {seeds})"
    )
    return claim, part.below(0.5)


def _as_accurate_as_central(results: PaperResults) -> Claim:
    gap = results.final_accuracy("CL") - results.final_accuracy("CPSL")
    claim = (
        "CPSL's final accuracy is within one point of CL's, or better "
        f"(CL's minus CPSL's: {100 * gap:+.2f} points)"
    )
    return claim, gap <= 0.01


def _fl_is_slowest(results: PaperResults) -> Claim:
    moment_s = _common_s(results)
    slowest = min(METHODS, key=lambda label: _accuracy_at(results.runs[label], moment_s))
    claim = (
        f"FL (L = 1) is the slowest: least accurate after {moment_s:.0f} simulated s, which every "
        "method trained for"
    )
    return claim, slowest == "FL"


def _tuned_fl_is_slower(results: PaperResults) -> Claim:
    part = ratio(results.mean_to_target_s(results.tuned_fl), results.mean_to_target_s("SL"))
    claim = (
        f"FL takes longer than SL to {results.target:.0%} also with the local epochs that serve it "
        f"best ({results.tuned_fl}: {part.text('{:.2g}'.format)} times SL's seconds)"
    )
    is_faster = part.below(1.0)
    return claim, None if is_faster is None else not is_faster


def _common_s(results: PaperResults) -> float:
    """Seconds that each of the three methods trained for."""
    return min(run.rounds[-1].elapsed_s for label in METHODS for run in results.runs[label])


def _accuracy_at(runs: Sequence[TrainedRun], moment_s: float) -> float:
    """Mean of the last accuracies measured by this moment; 0 before any was."""
    last = [
        next(
            (
                row.test_accuracy
                for row in reversed(run.rounds)
                if row.test_accuracy is not None and row.elapsed_s <= moment_s + 1e-6
            ),
            0.0,
        )
        for run in runs
    ]
    return float(np.mean(last))
