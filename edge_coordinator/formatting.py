"""Numbers as a person reads them, in few characters."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from runtime.wire.published import PlanReport  # Whoever writes numbers alone needs no messages.


def amount(value: float) -> str:
    """Write an amount with three digits and a decimal prefix, as `1.23M`."""
    for prefix, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * factor:
            scaled = value / factor
            digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
            return f"{scaled:.{digits}f}{prefix}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """Write seconds in at most three characters, as `99s`, `3m`, `50h`."""
    whole = max(0, int(seconds))
    for unit, size in (("s", 1), ("m", 60), ("h", 3600)):
        if whole < 100 * size:
            return f"{whole // size}{unit}"
    return f"{whole // 86_400}d"


def cut_words(plan: "PlanReport") -> str:
    """Name the last layer on the devices, and how many of them have another."""
    layers = Counter(layer for cluster in plan.clusters for layer in cluster.cut_layers or ())
    del layers[plan.cut_layer]
    others = ", ".join(f"{layers[layer]} after {layer}" for layer in layers)
    return plan.cut_layer + (f" ({others})" if others else "")


def short_seconds(seconds: float) -> str:
    """Write seconds in at most five characters, as `0.7ms`, `12ms`, `3.4s`."""
    if seconds < 0.00995:
        return f"{1e3 * seconds:.1f}ms"
    if seconds < 0.9995:
        return f"{1e3 * seconds:.0f}ms"
    return f"{seconds:.3g}s" if seconds < 999.5 else duration(seconds)


def some(sentences: Sequence[str], most: int = 5) -> str:
    """Join a few sentences, and count the rest."""
    more = f"; and {len(sentences) - most} more" if len(sentences) > most else ""
    return "; ".join(sentences[:most]) + more


class Evaluated(Protocol):
    """What a round's evaluation gave."""

    @property
    def metric(self) -> str:
        """What says which of two rounds is better; empty where only the test loss does."""
        ...

    @property
    def test_metric(self) -> float | None:
        """Its value."""
        ...

    @property
    def test_accuracy(self) -> float | None:
        """Fraction right, of classes."""
        ...


@dataclass(frozen=True)
class EvaluatedFigure:
    """What was written down of an evaluation."""

    metric: str
    test_metric: float | None
    test_accuracy: float | None


def figure_of(evaluated: Evaluated) -> tuple[str, float] | None:
    """Name and value of what says how good a round is; of reports that name none it is accuracy."""
    if evaluated.test_metric is not None:
        return evaluated.metric, evaluated.test_metric
    if evaluated.metric or evaluated.test_accuracy is None:
        return None
    return "accuracy", evaluated.test_accuracy


def figure_in_words(name: str, value: float) -> str:
    """A metric's value as people read it: accuracies in percent."""
    return f"{value:.2%}" if name == "accuracy" else f"{value:.4g}"
