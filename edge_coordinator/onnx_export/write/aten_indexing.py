"""ATen operators that take values from places, or put them there, as ONNX writes them.

Torch indexes any axes that lie side by side; ONNX the first ones. So these are moved to the front,
and what comes of it back.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from edge_coordinator.onnx_export.write.graph_writer import (
    GraphWriter,
    Translation,
    UntranslatableError,
    Written,
    arguments,
    tensor_of,
)

aten = torch.ops.aten

_TO_THE_END = 2**62


def _index(graph: GraphWriter, node: fx.Node) -> Written:
    x, indices = arguments(node)
    first, given = _side_by_side(indices)
    if len(given) == 1:
        return graph.add("Gather", graph.names[x], graph.names[given[0]], axis=first)
    front = _to_front(tensor_of(x).dim(), first, len(given))
    taken = graph.add("GatherND", _transposed(graph, graph.names[x], front), _joined(graph, given))
    return _transposed(graph, taken, _back(tensor_of(node).dim(), first, _rank(given)))


def _index_put(graph: GraphWriter, node: fx.Node) -> Written:
    x, indices, values, adds = arguments(node, None, None, None, False)
    first, given = _side_by_side(indices)
    rank, num_given = tensor_of(x).dim(), len(given)
    whole = tensor_of(values).dim() == rank - num_given + _rank(given)
    if not whole or any(size == 1 for size in tensor_of(values).shape if not adds):
        raise UntranslatableError("aten.index_put of values that are spread")
    front = _to_front(rank, first, num_given)
    put = graph.add(
        "ScatterND",
        _transposed(graph, graph.names[x], front),
        _joined(graph, given),
        _transposed(
            graph, graph.names[values], _to_front(tensor_of(values).dim(), first, _rank(given))
        ),
        reduction="add" if adds else "none",
    )
    return _transposed(graph, put, _back(rank, first, num_given))


def _side_by_side(indices: Sequence[fx.Node | None]) -> tuple[int, list[fx.Node]]:
    """The first axis that is indexed, and the indices of it and its neighbours."""
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    given = [index for index in indices if index is not None]
    if axes != list(range(axes[0], axes[0] + len(axes))):
        raise UntranslatableError("aten.index of axes that are apart")
    if any(tensor_of(index).dtype != torch.int64 for index in given):
        raise UntranslatableError("aten.index by what is not int64")
    return axes[0], given


def _rank(indices: Sequence[fx.Node]) -> int:
    return max(tensor_of(index).dim() for index in indices)


def _joined(graph: GraphWriter, indices: Sequence[fx.Node]) -> str:
    """Indices of one shape, side by side in a last axis; adding zeros spreads them to it."""
    names = [graph.names[index] for index in indices]
    zero = graph.constant(0, torch.int64)
    spread = []
    for name in names:
        for other in names:
            if other != name:
                name = graph.add("Add", name, graph.add("Mul", other, zero))  # noqa: PLW2901
        spread.append(graph.add("Unsqueeze", name, graph.integers([-1])))
    return graph.add("Concat", *spread, axis=-1) if len(spread) > 1 else spread[0]


def _to_front(rank: int, first: int, count: int) -> list[int]:
    """Axes in the order in which those from `first` on come before all others."""
    moved = list(range(first, first + count))
    return [*moved, *(axis for axis in range(rank) if axis not in moved)]


def _back(rank: int, first: int, count: int) -> list[int]:
    """Undo `_to_front`."""
    front = _to_front(rank, first, count)
    return [front.index(axis) for axis in range(rank)]


def _transposed(graph: GraphWriter, name: str, perm: list[int]) -> str:
    return name if perm == sorted(perm) else graph.add("Transpose", name, perm=perm)


def _index_select(graph: GraphWriter, node: fx.Node) -> Written:
    x, axis, index = arguments(node)
    return graph.add("Gather", graph.names[x], graph.names[index], axis=axis)


def _gather(graph: GraphWriter, node: fx.Node) -> Written:
    x, axis, index = arguments(node)[:3]
    return graph.add("GatherElements", graph.names[x], graph.names[index], axis=axis)


def _slice_scatter(graph: GraphWriter, node: fx.Node) -> Written:
    """What is before it, itself, and what is after it; in steps, value by value."""
    x, source, axis, start, stop, step = arguments(node, None, None, 0, None, None, 1)
    name, size = graph.operand(source, tensor_of(x).dtype), tensor_of(x).shape[axis]
    if _is_whole(start, stop, step, size):
        return name
    if not isinstance(size, int):
        raise UntranslatableError("aten.slice_scatter along the batch")
    places = range(size)[slice(start, stop, step)]
    if step == 1:
        parts = [(0, places.start), (places.stop, size)]
        before, after = (_piece(graph, graph.names[x], axis, *part) for part in parts)
        return graph.add("Concat", *before, name, *after, axis=axis)
    shape = [1] * tensor_of(x).dim()
    shape[axis] = len(places)
    index = graph.constant(torch.tensor(places).reshape(shape).numpy(), torch.int64)
    index = graph.add("Expand", index, graph.add("Shape", name))
    return graph.add("ScatterElements", graph.names[x], index, name, axis=axis)


def _is_whole(start: object, stop: object, step: int, size: Any) -> bool:  # noqa: ANN401
    ends = stop is None or (isinstance(stop, int) and (stop >= _TO_THE_END or stop == size))
    return start in {0, None} and step == 1 and bool(ends)


def _piece(graph: GraphWriter, name: str, axis: int, start: int, stop: int) -> list[str]:
    if start == stop:
        return []
    return [graph.add("Slice", name, *(graph.integers([each]) for each in (start, stop, axis)))]


TRANSLATIONS: dict[Callable[..., Any], Translation] = {
    aten.index.Tensor: _index,
    aten.index_put.default: _index_put,
    aten.index_select.default: _index_select,
    aten.gather.default: _gather,
    aten.slice_scatter.default: _slice_scatter,
}
