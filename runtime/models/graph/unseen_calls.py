"""Calls that torch's symbolic tracer does not see by itself, and that are recorded all the same.

- A function of the user's own with a backward of its own (`torch.autograd.Function`): the tracer
  would go through its forward, and the gradient be that of what it finds there.
- New tensors whose first size is a stand-in (`torch.zeros(x.size(0), 3)`): torch takes that for a
  tensor.
- What is drawn beside the samples (`torch.rand([]) < layer_drop`): it would be drawn once, while it
  is recorded, and be the same for ever.
"""

import operator
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any

import torch
from torch import fx
from torch.utils._pytree import tree_leaves

Record = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Writes down a call of a function, and gives the stand-in for what comes of it."""
_MAKERS = ("zeros", "ones", "empty", "full", "arange", "eye")
_DRAWS = ("rand", "randn", "randint", "randperm")
_RAND = torch.rand  # As it is while nothing is recorded.
COMPARISONS = (operator.lt, operator.ge)
"""By which code asks whether a draw is below a probability."""


@contextmanager
def calls_recorded(record: Record, *, is_tracing: Callable[[], bool]) -> Iterator[None]:
    """While entered, such calls with stand-ins among their arguments are recorded.

    Draws are recorded without any too, while the code that asks for them `is_tracing`.
    """
    apply = vars(torch.autograd.Function)["apply"]
    makers = {name: getattr(torch, name) for name in (*_MAKERS, *_DRAWS)}
    own, over = apply.__func__, threading.Event()
    with torch.device("cpu"):
        torch.zeros(0)  # Torch keeps which functions make tensors: those that it has by itself.

    def applied(cls: type[torch.autograd.Function], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if _has_stand_in(args, kwargs):
            return record(applied_function(cls), args, kwargs)
        return own(cls, *args, **kwargs)

    torch.autograd.Function.apply = classmethod(applied)  # type: ignore[assignment]
    for name, maker in makers.items():
        always = is_tracing if name in _DRAWS else _never
        setattr(torch, name, _recording(maker, record, always, over))
    try:
        yield
    finally:
        over.set()
        torch.autograd.Function.apply = apply  # type: ignore[method-assign]
        for name, maker in makers.items():
            setattr(torch, name, maker)


@cache
def applied_function(cls: type[torch.autograd.Function]) -> Callable[..., Any]:
    """Apply a function with a backward of its own, as a function that has a name."""

    def apply(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the user's own
        return cls.apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    apply.__name__, apply.__module__ = cls.__name__, cls.__module__
    apply.__qualname__ = cls.__qualname__
    return apply


def _never() -> bool:
    return False


def _recording(
    maker: Callable[..., Any], record: Record, always: Callable[[], bool], over: threading.Event
) -> Callable[..., Any]:
    @wraps(maker)
    def make(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - torch's own
        if over.is_set():  # A module that was imported meanwhile has it, `from torch import rand`.
            return getattr(torch, maker.__name__)(*args, **kwargs)
        if always() or _has_stand_in(args, kwargs):
            return record(maker, args, kwargs)
        return maker(*args, **kwargs)

    return make


def certain_of_draw(node: fx.Node) -> bool | None:
    """What a comparison with a number drawn from 0 to 1 gives, if that is the same for all."""
    if node.target not in COMPARISONS or len(node.args) != 2:
        return None
    drawn, bound = node.args
    if not isinstance(drawn, fx.Node) or drawn.target is not _RAND:
        return None
    if not isinstance(bound, int | float) or 0 < bound < 1:
        return None
    return (bound >= 1) is (node.target is operator.lt)


def _has_stand_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return any(isinstance(leaf, fx.Proxy) for leaf in tree_leaves((args, kwargs)))
