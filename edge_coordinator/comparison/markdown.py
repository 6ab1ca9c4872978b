"""Markdown as text: tables, and numbers."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, of_words: bool = False) -> str:
    """Write a table: the first column on the left, the others on the right unless of words."""
    rule = ["---", *["---" if of_words else "---:"] * (len(header) - 1)]
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


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


def gigaflop(value: float) -> str:
    """Write FLOP as GFLOP."""
    return f"{value / 1e9:.3g}" if value < 1e12 else f"{value / 1e9:.0f}"
