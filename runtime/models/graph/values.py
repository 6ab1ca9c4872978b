"""What each node of a captured graph gives, tried out on batches of two sizes.

Two sizes tell what follows the batch and what does not: a size that is the same for both is a
constant of the network, one that grows with the batch is a multiple of it. Neither has to cross
a cut, since either side knows it. The second batch has no numbers where its shapes will do.
"""

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from runtime.models.dropout import set_dropout_keys
from runtime.models.graph.numberless import META, ShapesAlone, on_meta, shapes_of
from runtime.models.seeded import SeededDropout
from runtime.seeding.torch_generator import generator_state

BATCHES = (2, 3)
"""Sizes of the batches that a graph is tried with; one of a single sample is often special."""
VALUES = "values"
MUTATED = "mutated"
DRAWS = "draws"
_SIMPLE = (bool, float, str, type(None), torch.dtype, torch.device, torch.layout, slice)


def values_of(node: fx.Node) -> tuple[Any, ...]:
    """What a node gave, [batch]."""
    values: tuple[Any, ...] = node.meta[VALUES]
    return values


class NeedsNumbersError(Exception):
    """Shapes alone do not tell what a node gives."""


@dataclass(frozen=True)
class Tried:
    """What a graph is tried on: the module, and two batches of unlike size."""

    root: nn.Module
    samples: tuple[Any, ...]
    shapes: nn.Module | None = None
    """A copy of the module without numbers for the second batch, which then has none either."""

    def by_shapes(self, shapes: nn.Module) -> "Tried":
        """Try the second batch by its shapes alone, on a copy of the module without numbers."""
        first, second = self.samples
        return Tried(self.root, (first, shapes_of(second)), shapes)


def evaluate(tried: Tried, node: fx.Node) -> None:
    """Compute a node from the values of those before it; note what it overwrites and draws.

    NeedsNumbersError where the second batch has none and they are asked for.
    """
    with torch.no_grad():
        if node.op == "placeholder":
            node.meta[VALUES] = tried.samples
            return
        inputs = [tensor for each in node.all_input_nodes for tensor in tensors_of(each)]
        versions = [tensor._version for tensor in inputs]  # noqa: SLF001 - there is no other way
        generator = generator_state()
        first = _run(tried.root, node, 0)
        node.meta[VALUES] = (first, _second(tried, node))
        node.meta[DRAWS] = not torch.equal(generator, generator_state())
        node.meta[MUTATED] = {
            storage_of(tensor)
            for tensor, version in zip(inputs, versions, strict=True)
            if tensor._version != version  # noqa: SLF001
        }


def storage_of(tensor: torch.Tensor) -> int:
    """Tell whether two tensors are views of one memory, which need not be there: by its holder."""
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - there is no other way


def tensors_of(node: fx.Node) -> Iterator[torch.Tensor]:
    """All tensors in what a node gave."""
    return (leaf for leaf in tree_leaves(values_of(node)) if isinstance(leaf, torch.Tensor))


def _second(tried: Tried, node: fx.Node) -> object:
    """What a node gives for the second batch."""
    if tried.shapes is None:
        return _run(tried.root, node, 1)
    try:
        with ShapesAlone():
            if node.op != "get_attr":
                return _run(tried.shapes, node, 1)
            # What tracing itself has added hangs below the module alone.
            return shapes_of(operator.attrgetter(str(node.target))(tried.root))
    except Exception as error:  # whatever torch or the user's own code raises, without numbers
        raise NeedsNumbersError(str(node)) from error


def _run(root: nn.Module, node: fx.Node, index: int) -> object:
    def given(argument: Any) -> Any:  # noqa: ANN401 - whatever a graph holds
        return fx.map_arg(argument, lambda each: values_of(each)[index])

    args, kwargs = given(node.args), given(node.kwargs)
    if torch.get_default_device() == META:
        args, kwargs = on_meta(args), on_meta(kwargs)
    match node.op:
        case "get_attr":
            return operator.attrgetter(str(node.target))(root)
        case "call_module":
            module = root.get_submodule(str(node.target))
            if isinstance(module, SeededDropout):
                return args[0] * 1  # It is not known yet where its samples are.
            set_dropout_keys(module, [((0,), BATCHES[index])])
            return module(*args, **kwargs)
        case "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        case "output":
            return args[0]
    target: Any = node.target
    return target(*args, **kwargs)


class NotRebuildableError(Exception):
    """A value that only the graph can compute."""


def rebuild(values: tuple[Any, ...], batch_multiple: Callable[[int], Any]) -> Any:  # noqa: ANN401
    """Write a value that either side knows: constants, and multiples of the batch size.

    Raises NotRebuildableError for a tensor, and for a number that follows the batch otherwise.
    """
    first, second = values
    if isinstance(first, int) and not isinstance(first, bool) and isinstance(second, int):
        if first == second:
            return first
        if first * BATCHES[1] == second * BATCHES[0] and first % BATCHES[0] == 0:
            return batch_multiple(first // BATCHES[0])
    elif isinstance(first, _SIMPLE) and first == second:
        return first
    elif isinstance(first, tuple | list) and len(first) == len(second):
        parts = [rebuild(pair, batch_multiple) for pair in zip(first, second, strict=True)]
        return parts if isinstance(first, list) else tuple(parts)
    raise NotRebuildableError


def is_rebuildable(values: tuple[Any, ...]) -> bool:
    """Whether either side of a cut knows a value without being told."""
    try:
        rebuild(values, lambda multiple: multiple)
    except NotRebuildableError:
        return False
    return True
