"""ATen operators that move values or make them, as ONNX writes them."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from edge_coordinator.export.onnx_writer import GraphWriter, Translation, UntranslatableError

aten = torch.ops.aten

_TO_THE_END = 2**62


def _tensor(node: Any) -> Tensor:
    tensor: Tensor = node.meta["val"]
    return tensor


def _argument(node: fx.Node, index: int, default: Any) -> Any:
    return node.args[index] if len(node.args) > index else default


def _reshape(graph: GraphWriter, node: fx.Node) -> Any:
    x, sizes = node.args
    followers = [size for size in sizes if isinstance(size, fx.Node)]  # type: ignore[union-attr]
    if len(followers) == 1 and -1 not in sizes:  # type: ignore[operator]
        sizes = [-1 if isinstance(size, fx.Node) else size for size in sizes]  # type: ignore[union-attr]
    return graph.add("Reshape", graph.names[x], graph.shape(sizes))  # type: ignore[index, arg-type]


def _expand(graph: GraphWriter, node: fx.Node) -> Any:
    """A size that stays is written as one, which ONNX takes for what is there."""
    x, sizes = node.args[:2]
    old = [*[None] * (len(sizes) - _tensor(x).dim()), *_tensor(x).shape]  # type: ignore[arg-type]
    new = [1 if _stays(a, b) else b for a, b in zip(old, sizes, strict=True)]  # type: ignore[arg-type]
    return graph.add("Expand", graph.names[x], graph.shape(new))  # type: ignore[index]


def _stays(old: Any, size: Any) -> bool:
    if isinstance(size, fx.Node):
        value = size.meta["val"]
        return isinstance(old, torch.SymInt) and bool(old.node.expr == value.node.expr)
    return bool(size == -1) or (isinstance(old, int) and old == size)


def _permute(graph: GraphWriter, node: fx.Node) -> Any:
    x, dims = node.args
    rank = _tensor(x).dim()
    return graph.add("Transpose", graph.names[x], perm=[dim % rank for dim in dims])  # type: ignore[index, union-attr, operator]


def _with_axes(operator_name: str) -> Translation:
    def write(graph: GraphWriter, node: fx.Node) -> Any:
        dims: Any = node.args[1]
        axes = graph.integers([dims] if isinstance(dims, int) else dims)
        return graph.add(operator_name, graph.names[node.args[0]], axes)  # type: ignore[index]

    return write


def _slice(graph: GraphWriter, node: fx.Node) -> Any:
    x, dim, start, stop, step = [*node.args, *(None, 0, None, None, 1)[len(node.args) :]]
    bounds = [0 if start is None else start, _TO_THE_END if stop is None else stop]
    starts, stops = (graph.shape([bound]) for bound in bounds)
    vectors = [starts, stops, graph.integers([dim]), graph.integers([step])]
    return graph.add("Slice", graph.names[x], *vectors)  # type: ignore[index]


def _flip(graph: GraphWriter, node: fx.Node) -> Any:
    dims: Any = node.args[1]
    vectors = ([-1] * len(dims), [-_TO_THE_END] * len(dims), dims, [-1] * len(dims))
    names = [graph.integers(vector) for vector in vectors]
    return graph.add("Slice", graph.names[node.args[0]], *names)  # type: ignore[index]


def _select(graph: GraphWriter, node: fx.Node) -> Any:
    x, dim, index = node.args
    position = graph.constant(index, torch.int64)  # type: ignore[arg-type]
    return graph.add("Gather", graph.names[x], position, axis=dim)  # type: ignore[index]


def _split(graph: GraphWriter, node: fx.Node) -> Any:
    sizes: Any = node.args[1]
    if any(isinstance(size, fx.Node) for size in sizes):
        raise UntranslatableError("aten.split_with_sizes along the batch")
    x, axis = graph.names[node.args[0]], _argument(node, 2, 0)  # type: ignore[index]
    names = graph.add("Split", x, graph.integers(sizes), axis=axis, num_outputs=len(sizes))
    return names if isinstance(names, list) else [names]


def _get_item(graph: GraphWriter, node: fx.Node) -> Any:
    return graph.names[node.args[0]][node.args[1]]  # type: ignore[index]


def _concatenate(graph: GraphWriter, node: fx.Node) -> Any:
    tensors: Sequence[Any] = node.args[0]  # type: ignore[assignment]
    names = [graph.operand(tensor, _tensor(node).dtype) for tensor in tensors]
    return graph.add("Concat", *names, axis=_argument(node, 1, 0))


def _pad(graph: GraphWriter, node: fx.Node) -> Any:
    """ATen pads from the last dimension on, before and after; ONNX all befores, then afters."""
    x, pads = node.args[:2]
    value = graph.constant(_argument(node, 2, 0.0), _tensor(node).dtype)
    missing = [0] * (_tensor(x).dim() - len(pads) // 2)  # type: ignore[arg-type]
    before, after = ([*missing, *reversed(pads[side::2])] for side in (0, 1))  # type: ignore[index, call-overload]
    return graph.add("Pad", graph.names[x], graph.integers([*before, *after]), value)  # type: ignore[index]


def _repeat(graph: GraphWriter, node: fx.Node) -> Any:
    x, repeats = node.args
    if len(repeats) != _tensor(x).dim():  # type: ignore[arg-type]
        raise UntranslatableError("aten.repeat into new dimensions")
    return graph.add("Tile", graph.names[x], graph.shape(repeats))  # type: ignore[index, arg-type]


def _full(graph: GraphWriter, node: fx.Node) -> Any:
    sizes, value = node.args
    return graph.add("Expand", graph.operand(value, _tensor(node).dtype), graph.shape(sizes))  # type: ignore[arg-type]


def _full_like(graph: GraphWriter, node: fx.Node) -> Any:
    x, value = node.args
    shape = graph.add("Shape", graph.names[x])  # type: ignore[index]
    return graph.add("Expand", graph.operand(value, _tensor(node).dtype), shape)


def _scalar(graph: GraphWriter, node: fx.Node) -> Any:
    return graph.operand(node.args[0], _tensor(node).dtype)


def _arange(graph: GraphWriter, node: fx.Node) -> Any:
    if not all(isinstance(argument, int | float) for argument in node.args):
        raise UntranslatableError("aten.arange over the batch")
    return graph.constant(np.arange(*node.args), _tensor(node).dtype)


def _embedding(graph: GraphWriter, node: fx.Node) -> Any:
    weight, indices = node.args[:2]
    return graph.add("Gather", graph.names[weight], graph.names[indices], axis=0)  # type: ignore[index]


def _size(graph: GraphWriter, node: fx.Node) -> Any:
    x, dim = node.args
    return graph.add("Shape", graph.names[x], start=dim, end=dim + 1)  # type: ignore[index, operator]


TRANSLATIONS: dict[Callable[..., Any], Translation] = {
    aten.reshape.default: _reshape,
    aten.expand.default: _expand,
    aten.permute.default: _permute,
    aten.squeeze.dims: _with_axes("Squeeze"),
    aten.unsqueeze.default: _with_axes("Unsqueeze"),
    aten.slice.Tensor: _slice,
    aten.flip.default: _flip,
    aten.select.int: _select,
    aten.split_with_sizes.default: _split,
    operator.getitem: _get_item,
    aten.cat.default: _concatenate,
    aten.constant_pad_nd.default: _pad,
    aten.repeat.default: _repeat,
    aten.full.default: _full,
    aten.full_like.default: _full_like,
    aten.scalar_tensor.default: _scalar,
    aten.arange.start_step: _arange,
    aten.embedding.default: _embedding,
    aten.sym_size.int: _size,
}
