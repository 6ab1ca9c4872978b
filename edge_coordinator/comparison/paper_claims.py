"""What the paper's comparison has to show, and whether our runs show it."""

from collections.abc import Sequence

import numpy as np

from edge_coordinator.comparison.paper_report import PaperResults
from edge_coordinator.comparison.results import TrainedRun

METHODS = ("CPSL", "SL", "FL")


def claims_part(results: PaperResults) -> str:
    """What the comparison has to show, and whether it does."""
    lines = [
        f"- {'holds' if holds else 'DOES NOT HOLD'}: {claim}" for claim, holds in _claims(results)
    ]
    return "## Claims\n\n" + "\n".join(lines) + "\n"


def _claims(results: PaperResults) -> list[tuple[str, bool]]:
    return [
        _latencies_agree(results),
        _ratios_stay(results),
        _cpsl_is_faster(results),
        _as_accurate_as_central(results),
        _fl_is_slowest(results),
    ]


def _latencies_agree(results: PaperResults) -> tuple[str, bool]:
    published = results.scenario.published
    error = max(
        abs(results.round_s(label) / published[f"{label.lower()}_round_s"] - 1) for label in METHODS
    )
    claim = f"the three latencies are within 1 % of the published ones (off by {error:.2%} at most)"
    return claim, error <= 0.01


def _ratios_stay(results: PaperResults) -> tuple[str, bool]:
    spread = results.spread
    sl, fl = (spread[method].mean_s / spread["cpsl"].mean_s for method in ("sl", "fl"))
    claim = (
        f"with a spread of 10 % SL takes at least 3.5 times CPSL's round ({sl:.2f}) and FL at "
        f"least 8 times ({fl:.2f})"
    )
    return claim, sl >= 3.5 and fl >= 8


def _cpsl_is_faster(results: PaperResults) -> tuple[str, bool]:
    fast, slow = results.to_target_s("CPSL"), results.to_target_s("SL")
    pairs = [
        (own, other)
        for own, other in zip(fast, slow, strict=True)
        if own is not None and other is not None
    ]
    claim = f"CPSL reaches {results.target:.0%} in less than half of SL's simulated seconds"
    if len(pairs) < len(fast):
        return f"{claim} (not every seed reached it)", False
    own_s, other_s = np.array(pairs).mean(axis=0)
    parts = [own / other for own, other in pairs]
    seeds = f"seed by seed {min(parts):.0%} to {max(parts):.0%}"
    return f"{claim} ({own_s / other_s:.0%} in the mean; {seeds})", own_s < other_s / 2


def _as_accurate_as_central(results: PaperResults) -> tuple[str, bool]:
    gap = results.final_accuracy("CL") - results.final_accuracy("CPSL")
    claim = (
        "CPSL's final accuracy is within one point of CL's, or better "
        f"(CL's minus CPSL's: {100 * gap:+.2f} points)"
    )
    return claim, gap <= 0.01


def _fl_is_slowest(results: PaperResults) -> tuple[str, bool]:
    moment_s = _common_s(results)
    slowest = min(METHODS, key=lambda label: _accuracy_at(results.runs[label], moment_s))
    claim = (
        f"FL is the slowest: least accurate after {moment_s:.0f} simulated s, which every method "
        "trained for"
    )
    return claim, slowest == "FL"


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
