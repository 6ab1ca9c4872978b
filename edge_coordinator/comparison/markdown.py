"""Markdown as text: tables, and numbers with their spread over seeds."""

from collections.abc import Callable, Sequence

import numpy as np


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, of_words: bool = False) -> str:
    """Write a table: the first column on the left, the others on the right unless of words."""
    rule = ["---", *["---" if of_words else "---:"] * (len(header) - 1)]
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def over_seeds(
    values: Sequence[float | None], write: Callable[[float], str], *, missing: str = "not reached"
) -> str:
    """Write the mean, and the range where there are several; some may be missing."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    if not known:
        return missing
    text = write(float(np.mean(known)))
    if len(known) > 1 and write(min(known)) != write(max(known)):
        text += f" ({write(min(known))} to {write(max(known))})"
    if len(known) < len(values):
        text += f", {missing} by {len(values) - len(known)} of {len(values)}"
    return text


def seconds(value: float) -> str:
    """Write seconds with what digits they need."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 20 else f"{value:.2f}"


def percent(value: float) -> str:
    """Write a fraction as a percentage."""
    return f"{100 * value:.1f} %"


def megabytes(value: float) -> str:
    """Write bytes as MB of 10^6."""
    return f"{value / 1e6:.3g}" if value < 1e9 else f"{value / 1e6:.0f}"


def whole(value: float) -> str:
    """Write a count."""
    return f"{value:.0f}"
