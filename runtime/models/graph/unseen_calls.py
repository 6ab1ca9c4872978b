"""Calls that torch's symbolic tracer does not see by itself, and that are recorded all the same.

- A function of the user's own with a backward of its own (`torch.autograd.Function`): the tracer
  would go through its forward, and the gradient be that of what it finds there.
- New tensors whose first size is a stand-in (`torch.zeros(x.size(0), 3)`): torch takes that for a
  tensor.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any

import torch
from torch import fx
from torch.utils._pytree import tree_leaves

Record = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Writes down a call of a function, and gives the stand-in for what comes of it."""
_MAKERS = ("zeros", "ones", "empty", "full", "rand", "randn", "randint", "arange", "eye")


@contextmanager
def calls_recorded(record: Record) -> Iterator[None]:
    """While entered, such calls with stand-ins among their arguments are recorded."""
    apply = vars(torch.autograd.Function)["apply"]
    makers = {name: getattr(torch, name) for name in _MAKERS}
    own = apply.__func__

    def applied(cls: type[torch.autograd.Function], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if _has_stand_in(args, kwargs):
            return record(applied_function(cls), args, kwargs)
        return own(cls, *args, **kwargs)

    torch.autograd.Function.apply = classmethod(applied)  # type: ignore[assignment]
    for name, maker in makers.items():
        setattr(torch, name, _recording(maker, record))
    try:
        yield
    finally:
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


def _recording(maker: Callable[..., Any], record: Record) -> Callable[..., Any]:
    @wraps(maker)
    def make(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - torch's own
        return (
            record(maker, args, kwargs) if _has_stand_in(args, kwargs) else maker(*args, **kwargs)
        )

    return make


def _has_stand_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return any(isinstance(leaf, fx.Proxy) for leaf in tree_leaves((args, kwargs)))
