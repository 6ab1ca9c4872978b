"""ATen operators that work value by value, as ONNX writes them."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from edge_coordinator.onnx_export.write.graph_writer import (
    GraphWriter,
    Translation,
    UntranslatableError,
    Written,
    arguments,
    element_type,
    tensor_of,
)

aten = torch.ops.aten


def _dtype(node: fx.Node) -> torch.dtype:
    return tensor_of(node).dtype


def _unary(operator_name: str) -> Translation:
    def write(graph: GraphWriter, node: fx.Node) -> Written:
        return graph.add(operator_name, graph.operand(arguments(node)[0], _dtype(node)))

    return write


def _binary(operator_name: str) -> Translation:
    """Both sides in the dtype of the result; add and subtract may scale their second."""

    def write(graph: GraphWriter, node: fx.Node) -> Written:
        left, right = (graph.operand(argument, _dtype(node)) for argument in arguments(node)[:2])
        alpha: Any = node.kwargs.get("alpha", 1)
        if alpha != 1:
            right = graph.add("Mul", right, graph.constant(alpha, _dtype(node)))
        return graph.add(operator_name, left, right)

    return write


def _comparison(operator_name: str, *, negated: bool = False) -> Translation:
    def write(graph: GraphWriter, node: fx.Node) -> Written:
        left, right = arguments(node)[:2]
        values = [side.meta["val"] if isinstance(side, fx.Node) else side for side in (left, right)]
        dtype = torch.result_type(values[0], values[1])
        result = graph.add(operator_name, graph.operand(left, dtype), graph.operand(right, dtype))
        return graph.add("Not", result) if negated else result

    return write


def _logical(operator_name: str) -> Translation:
    def write(graph: GraphWriter, node: fx.Node) -> Written:
        operands = [graph.operand(argument, torch.bool) for argument in arguments(node)]
        return graph.add(operator_name, *operands)

    return write


def _bitwise(operator_name: str) -> Translation:
    """Of truth values, which is all that devices do bit by bit."""

    def write(graph: GraphWriter, node: fx.Node) -> Written:
        if _dtype(node) != torch.bool:
            raise UntranslatableError(f"{node.target} of {_dtype(node)}")
        return _logical(operator_name)(graph, node)

    return write


def _remainder(graph: GraphWriter, node: fx.Node) -> Written:
    """With the sign of what is divided, as C has it."""
    operands = [graph.operand(argument, _dtype(node)) for argument in arguments(node)]
    return graph.add("Mod", *operands, fmod=1)


def _rsqrt(graph: GraphWriter, node: fx.Node) -> Written:
    root = graph.add("Sqrt", graph.operand(arguments(node)[0], _dtype(node)))
    return graph.add("Reciprocal", root)


def _clip(graph: GraphWriter, node: fx.Node) -> Written:
    defaults = (None, -1.0, 1.0) if node.target is aten.hardtanh.default else (None, None, None)
    x, *limits = arguments(node, *defaults)
    bounds = ["" if limit is None else graph.operand(limit, _dtype(node)) for limit in limits]
    return graph.add("Clip", graph.operand(x, _dtype(node)), *bounds)


def _leaky_relu(graph: GraphWriter, node: fx.Node) -> Written:
    slope = arguments(node)[1] if len(arguments(node)) > 1 else 0.01
    return graph.add("LeakyRelu", graph.names[arguments(node)[0]], alpha=slope)


def _elu(graph: GraphWriter, node: fx.Node) -> Written:
    x, alpha, scale, input_scale = arguments(node, None, 1.0, 1.0, 1.0)
    value = graph.operand(x, _dtype(node))
    if input_scale != 1:
        value = graph.add("Mul", value, graph.constant(input_scale, _dtype(node)))
    value = graph.add("Elu", value, alpha=float(alpha))
    if scale != 1:
        value = graph.add("Mul", value, graph.constant(scale, _dtype(node)))
    return value


def _where(graph: GraphWriter, node: fx.Node) -> Written:
    condition, *sides = arguments(node)
    operands = [graph.operand(side, _dtype(node)) for side in sides]
    return graph.add("Where", graph.operand(condition, torch.bool), *operands)


def _cast(graph: GraphWriter, node: fx.Node) -> Written:
    name = graph.names[arguments(node)[0]]
    return graph.add("Cast", name, to=element_type(_dtype(node)))


def _of_numbers(operator_name: str) -> Translation:
    """Arithmetic on numbers that follow the batch size."""

    def write(graph: GraphWriter, node: fx.Node) -> Written:
        is_float = isinstance(node.meta["val"], torch.SymFloat)
        dtype = torch.float32 if is_float else torch.int64
        sides = [graph.operand(argument, dtype) for argument in arguments(node)]
        return graph.add("Unsqueeze", graph.add(operator_name, *sides), graph.integers([0]))

    return write


_UNARY = {
    "abs": "Abs",
    "ceil": "Ceil",
    "cos": "Cos",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "log": "Log",
    "neg": "Neg",
    "reciprocal": "Reciprocal",
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
}
_BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div"}
_COMPARISONS = {
    "eq": "Equal",
    "gt": "Greater",
    "lt": "Less",
    "ge": "GreaterOrEqual",
    "le": "LessOrEqual",
}

TRANSLATIONS: dict[Callable[..., Any], Translation] = {
    **{getattr(aten, name).default: _unary(onnx_name) for name, onnx_name in _UNARY.items()},
    **{getattr(aten, name).Tensor: _binary(onnx_name) for name, onnx_name in _BINARY.items()},
    **{getattr(aten, name).Scalar: _binary(onnx_name) for name, onnx_name in _BINARY.items()},
    **{getattr(aten, name).Tensor: _comparison(to) for name, to in _COMPARISONS.items()},
    **{getattr(aten, name).Scalar: _comparison(to) for name, to in _COMPARISONS.items()},
    aten.ne.Tensor: _comparison("Equal", negated=True),
    aten.ne.Scalar: _comparison("Equal", negated=True),
    aten.maximum.default: _binary("Max"),
    aten.minimum.default: _binary("Min"),
    aten.pow.Tensor_Scalar: _binary("Pow"),
    aten.pow.Tensor_Tensor: _binary("Pow"),
    aten.logical_and.default: _logical("And"),
    aten.logical_or.default: _logical("Or"),
    aten.logical_not.default: _logical("Not"),
    aten.bitwise_and.Tensor: _bitwise("And"),
    aten.bitwise_or.Tensor: _bitwise("Or"),
    aten.bitwise_xor.Tensor: _bitwise("Xor"),
    aten.bitwise_not.default: _bitwise("Not"),
    aten.fmod.Scalar: _remainder,
    aten.fmod.Tensor: _remainder,
    aten.rsqrt.default: _rsqrt,
    aten.clamp.default: _clip,
    aten.hardtanh.default: _clip,
    aten.leaky_relu.default: _leaky_relu,
    aten.elu.default: _elu,
    aten.where.self: _where,
    aten._to_copy.default: _cast,
    operator.add: _of_numbers("Add"),
    operator.sub: _of_numbers("Sub"),
    operator.mul: _of_numbers("Mul"),
    operator.truediv: _of_numbers("Div"),
    operator.floordiv: _of_numbers("Div"),
}
