"""The program the edge server runs, and the same from Python (docs/python.md)."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_coordinator.api.job import Job
    from edge_coordinator.api.results import Comparison, Run
    from edge_coordinator.api.runs import (
        compare,
        compare_async,
        run_local,
        run_local_async,
        simulate,
        simulate_async,
    )

__all__ = [
    "Comparison",
    "Job",
    "Run",
    "compare",
    "compare_async",
    "run_local",
    "run_local_async",
    "simulate",
    "simulate_async",
]

_HOMES = {"Job": "job", "Run": "results", "Comparison": "results"}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is: a command line asks for none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"edge_coordinator.api.{_HOMES.get(name, 'runs')}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
