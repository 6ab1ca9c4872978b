"""Copies of modules whose tensors have shapes and no numbers, on torch's meta device.

What only asks for shapes, types and costs runs on them in next to no time. Code that looks at the
values of tensors, or that keeps tensors beside its state, cannot: it raises, and is run as it is.
So is everything in a process without torch's compiler, which the kernels of the meta device import:
that takes longer than to compute, and tens of megabytes. Torchvision and transformers import it.
"""

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self, TypeVar

import torch
from torch import nn
from torch.fx.node import map_aggregate
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

Module = TypeVar("Module", bound=nn.Module)
META = torch.device("meta")


def is_quick() -> bool:
    """Whether the meta device has all that it needs."""
    return "torch._dynamo" in sys.modules


def numberless(module: Module) -> Module:
    """Copy a module without its numbers; what is tied stays tied."""
    state = [*module.parameters(), *module.buffers()]
    memo: dict[int, Any] = {id(tensor): _without_numbers(tensor) for tensor in state}
    return copy.deepcopy(module, memo)


def shapes_of(given: Any) -> Any:  # noqa: ANN401 - a tensor, or whatever holds some
    """Take the numbers from tensors."""
    return tree_map_only(torch.Tensor, lambda tensor: tensor.to(META), given)


def on_meta(arguments: Any) -> Any:  # noqa: ANN401 - whatever a graph holds
    """Have arguments of a call that name the processor name the meta device."""
    return map_aggregate(arguments, lambda each: META if _is_processor(each) else each)


def _is_processor(argument: object) -> bool:
    return (isinstance(argument, torch.device) and argument.type == "cpu") or (
        isinstance(argument, str) and argument == "cpu"
    )


def _without_numbers(tensor: torch.Tensor) -> torch.Tensor:
    shape = torch.empty_like(tensor, device=META)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(shape, requires_grad=tensor.requires_grad)
    return shape


def _normalised(x: torch.Tensor, weight: torch.Tensor | None, *_rest: object) -> tuple[Any, ...]:
    like = weight if weight is not None else x.new_empty(x.shape[1])
    return torch.empty_like(x), torch.empty_like(like), torch.empty_like(like)


def _normalised_backward(
    _gradient: torch.Tensor,
    x: torch.Tensor,
    *rest: Any,  # noqa: ANN401 - weight, means, deviations, ..., which gradients are wanted
) -> tuple[Any, ...]:
    weight, (x_wanted, weight_wanted, bias_wanted) = rest[0], rest[-1]
    like = weight if weight is not None else x.new_empty(x.shape[1])
    return (
        torch.empty_like(x) if x_wanted else None,
        torch.empty_like(like) if weight_wanted else None,
        torch.empty_like(like) if bias_wanted else None,
    )


_SHAPES: Mapping[Any, Callable[..., object]] = {
    torch.ops.aten.native_batch_norm.default: _normalised,
    torch.ops.aten._native_batch_norm_legit.default: _normalised,  # noqa: SLF001
    torch.ops.aten.native_batch_norm_backward.default: _normalised_backward,
}
"""Operators that torch works out piece by piece on its meta device, which takes milliseconds."""


class ShapesAlone(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, what is made lies on the meta device, and is soon made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._entered = ExitStack()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from wrapping the method below, for which it imports its compiler."""
        return False

    def __enter__(self) -> Self:
        self._entered.enter_context(META)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: ANN401 - torch's own signature
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._entered.close()

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's own signature
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        quick = _SHAPES.get(func)
        return func(*args, **(kwargs or {})) if quick is None else quick(*args, **(kwargs or {}))
