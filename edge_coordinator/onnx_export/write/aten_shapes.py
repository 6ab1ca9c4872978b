"""ATen operators that move values or make them, as ONNX writes them."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
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


def _reshape(graph: GraphWriter, node: fx.Node) -> Written:
    x, sizes = arguments(node)
    followers = [size for size in sizes if isinstance(size, fx.Node)]
    if len(followers) == 1 and -1 not in sizes:
        sizes = [-1 if isinstance(size, fx.Node) else size for size in sizes]
    return graph.add("Reshape", graph.names[x], graph.shape(sizes))


def _expand(graph: GraphWriter, node: fx.Node) -> Written:
    """A size that stays is written as one, which ONNX takes for what is there."""
    x, sizes = arguments(node)[:2]
    old = [*[None] * (len(sizes) - tensor_of(x).dim()), *tensor_of(x).shape]
    new = [1 if _stays(a, b) else b for a, b in zip(old, sizes, strict=True)]
    return graph.add("Expand", graph.names[x], graph.shape(new))


def _stays(old: object, size: object) -> bool:
    if isinstance(size, fx.Node):
        value = size.meta["val"]
        return isinstance(old, torch.SymInt) and bool(old.node.expr == value.node.expr)
    return bool(size == -1) or (isinstance(old, int) and old == size)


def _permute(graph: GraphWriter, node: fx.Node) -> Written:
    x, dims = arguments(node)
    rank = tensor_of(x).dim()
    return graph.add("Transpose", graph.names[x], perm=[dim % rank for dim in dims])


def _with_axes(operator_name: str) -> Translation:
    def write(graph: GraphWriter, node: fx.Node) -> Written:
        x, dims = arguments(node)
        axes = graph.integers([dims] if isinstance(dims, int) else dims)
        return graph.add(operator_name, graph.names[x], axes)

    return write


def _slice(graph: GraphWriter, node: fx.Node) -> Written:
    x, dim, start, stop, step = arguments(node, None, 0, None, None, 1)
    bounds = [0 if start is None else start, _TO_THE_END if stop is None else stop]
    starts, stops = (graph.shape([bound]) for bound in bounds)
    vectors = [starts, stops, graph.integers([dim]), graph.integers([step])]
    return graph.add("Slice", graph.names[x], *vectors)


def _flip(graph: GraphWriter, node: fx.Node) -> Written:
    x, dims = arguments(node)
    vectors = ([-1] * len(dims), [-_TO_THE_END] * len(dims), dims, [-1] * len(dims))
    names = [graph.integers(vector) for vector in vectors]
    return graph.add("Slice", graph.names[x], *names)


def _select(graph: GraphWriter, node: fx.Node) -> Written:
    x, dim, index = arguments(node)
    position = graph.constant(index, torch.int64)
    return graph.add("Gather", graph.names[x], position, axis=dim)


def _split(graph: GraphWriter, node: fx.Node) -> Written:
    x, sizes, axis = arguments(node, None, None, 0)
    if any(isinstance(size, fx.Node) for size in sizes):
        raise UntranslatableError("aten.split_with_sizes along the batch")
    name = graph.names[x]
    return graph.add_many("Split", name, graph.integers(sizes), axis=axis, num_outputs=len(sizes))


def _get_item(graph: GraphWriter, node: fx.Node) -> Written:
    source, index = arguments(node)
    name: str = graph.names[source][index]
    return name


def _concatenate(graph: GraphWriter, node: fx.Node) -> Written:
    tensors, axis = arguments(node, None, 0)
    whole = tensor_of(node)
    # Torch lets a tensor of nothing stand beside those of more axes: a cache at its beginning.
    given = [each for each in tensors if tensor_of(each).dim() == whole.dim()]
    names = [graph.operand(tensor, whole.dtype) for tensor in given]
    return graph.add("Concat", *names, axis=axis)


def _pad(graph: GraphWriter, node: fx.Node) -> Written:
    """ATen pads from the last dimension on, before and after; ONNX all befores, then afters."""
    x, pads, fill = arguments(node, None, None, 0.0)
    value = graph.constant(fill, tensor_of(node).dtype)
    missing = [0] * (tensor_of(x).dim() - len(pads) // 2)
    before, after = ([*missing, *reversed(pads[side::2])] for side in (0, 1))
    return graph.add("Pad", graph.names[x], graph.integers([*before, *after]), value)


def _repeat(graph: GraphWriter, node: fx.Node) -> Written:
    x, repeats = arguments(node)
    if len(repeats) != tensor_of(x).dim():
        raise UntranslatableError("aten.repeat into new dimensions")
    return graph.add("Tile", graph.names[x], graph.shape(repeats))


def _full(graph: GraphWriter, node: fx.Node) -> Written:
    sizes, value = arguments(node)
    return graph.add("Expand", graph.operand(value, tensor_of(node).dtype), graph.shape(sizes))


def _full_like(graph: GraphWriter, node: fx.Node) -> Written:
    x, value = arguments(node)
    shape = graph.add("Shape", graph.names[x])
    return graph.add("Expand", graph.operand(value, tensor_of(node).dtype), shape)


def _scalar(graph: GraphWriter, node: fx.Node) -> Written:
    return graph.operand(arguments(node)[0], tensor_of(node).dtype)


def _arange(graph: GraphWriter, node: fx.Node) -> Written:
    dtype, bounds = tensor_of(node).dtype, arguments(node, None, None, 1)
    if all(isinstance(argument, int | float) for argument in bounds):
        return graph.constant(np.arange(*bounds), dtype)
    return graph.add("Range", *(graph.operand(bound, dtype) for bound in bounds))


def _copy(graph: GraphWriter, node: fx.Node) -> Written:
    """What is copied, as what it is copied over: of its shape and dtype."""
    target, source = arguments(node)[:2]
    name = graph.operand(source, tensor_of(node).dtype)
    return graph.add("Expand", name, graph.add("Shape", graph.names[target]))


def _embedding(graph: GraphWriter, node: fx.Node) -> Written:
    weight, indices = arguments(node)[:2]
    return graph.add("Gather", graph.names[weight], graph.names[indices], axis=0)


def _size(graph: GraphWriter, node: fx.Node) -> Written:
    x, dim = arguments(node)
    return graph.add("Shape", graph.names[x], start=dim, end=dim + 1)


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
    aten.copy.default: _copy,
    aten.embedding.default: _embedding,
    aten.sym_size.int: _size,
}
