"""ATen operators that add up or multiply many values, as ONNX writes them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from edge_coordinator.onnx_export.decompositions.windows import per_dimension
from edge_coordinator.onnx_export.write.graph_writer import (
    GraphWriter,
    Translation,
    UntranslatableError,
    Written,
    arguments,
    tensor_of,
)

aten = torch.ops.aten


def _reduction(operator_name: str) -> Translation:
    def write(graph: GraphWriter, node: fx.Node) -> Written:
        x, dims, keep = arguments(node, None, None, False)
        name = graph.operand(x, tensor_of(node).dtype)
        axes = [graph.integers(dims)] if dims else []
        return graph.add(operator_name, name, *axes, keepdims=int(keep))

    return write


def _any(graph: GraphWriter, node: fx.Node) -> Written:
    x, dim, keep = arguments(node, None, None, False)
    found = graph.cast(graph.operand(x, torch.bool), torch.float32)
    found = graph.add("ReduceMax", found, graph.integers([dim]), keepdims=int(keep))
    return graph.cast(found, torch.bool)


def _product(graph: GraphWriter, node: fx.Node) -> Written:
    left, right = arguments(node)
    return graph.add("MatMul", graph.names[left], graph.names[right])


def _sum_and_product(graph: GraphWriter, node: fx.Node) -> Written:
    added, left, right = (graph.names[argument] for argument in arguments(node)[:3])
    options: dict[str, Any] = dict(node.kwargs)
    alpha, beta = (float(options.get(key, 1)) for key in ("alpha", "beta"))
    return graph.add("Gemm", left, right, added, alpha=alpha, beta=beta)


def _convolution(graph: GraphWriter, node: fx.Node) -> Written:
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = arguments(node)
    num_dims = tensor_of(x).dim() - 2
    attributes: dict[str, Any] = {
        "strides": per_dimension(stride, num_dims, 1),
        "pads": per_dimension(padding, num_dims, 0) * 2,
        "dilations": per_dimension(dilation, num_dims, 1),
        "group": groups,
    }
    if transposed:
        attributes["output_padding"] = per_dimension(output_padding, num_dims, 0)
    inputs = [graph.names[value] for value in (x, weight, bias) if value is not None]
    return graph.add("ConvTranspose" if transposed else "Conv", *inputs, **attributes)


def _max_pool(graph: GraphWriter, node: fx.Node) -> Written:
    x, kernel, stride, padding, dilation, ceil = arguments(node, None, None, [], 0, 1, False)
    num_dims = tensor_of(x).dim() - 2
    kernel = per_dimension(kernel, num_dims, 1)
    return graph.add(
        "MaxPool",
        graph.names[x],
        kernel_shape=kernel,
        strides=per_dimension(stride or kernel, num_dims, 1),
        pads=per_dimension(padding, num_dims, 0) * 2,
        dilations=per_dimension(dilation, num_dims, 1),
        ceil_mode=int(ceil),
    )


def _average_pool(graph: GraphWriter, node: fx.Node) -> Written:
    x, kernel, stride, padding, ceil, include_pad, divisor = arguments(
        node, None, None, [], 0, False, True, None
    )
    if ceil or divisor is not None:
        raise UntranslatableError("aten.avg_pool2d with ceil_mode or a divisor")
    num_dims = tensor_of(x).dim() - 2
    kernel = per_dimension(kernel, num_dims, 1)
    return graph.add(
        "AveragePool",
        graph.names[x],
        kernel_shape=kernel,
        strides=per_dimension(stride or kernel, num_dims, 1),
        pads=per_dimension(padding, num_dims, 0) * 2,
        count_include_pad=int(include_pad),
    )


def _softmax(operator_name: str) -> Translation:
    def write(graph: GraphWriter, node: fx.Node) -> Written:
        name = graph.operand(arguments(node)[0], tensor_of(node).dtype)
        return graph.add(operator_name, name, axis=arguments(node)[1])

    return write


def _batch_norm(graph: GraphWriter, node: fx.Node) -> Written:
    """In evaluation; in training it is decomposed. A scale or bias that is not there is given."""
    x, weight, bias, mean, variance, _, eps = arguments(node)
    num_channels, dtype = tensor_of(mean).shape[0], tensor_of(x).dtype
    scale = graph.constant([1.0] * num_channels, dtype) if weight is None else graph.names[weight]
    shift = graph.constant([0.0] * num_channels, dtype) if bias is None else graph.names[bias]
    inputs = [graph.names[x], scale, shift, graph.names[mean], graph.names[variance]]
    return [graph.add("BatchNormalization", *inputs, epsilon=eps)]


def _layer_norm(graph: GraphWriter, node: fx.Node) -> Written:
    x, shape, weight, bias, eps = arguments(node)
    dtype = tensor_of(x).dtype
    if dtype != torch.float32:
        raise UntranslatableError(f"aten.native_layer_norm of {dtype}")
    scale = graph.names[weight] if weight is not None else _ones(graph, shape, dtype)
    inputs = [graph.names[x], scale, *([] if bias is None else [graph.names[bias]])]
    return graph.add_many(
        "LayerNormalization", *inputs, num_outputs=3, axis=-len(shape), epsilon=eps
    )


def _ones(graph: GraphWriter, shape: Sequence[int], dtype: torch.dtype) -> str:
    return graph.add("Expand", graph.constant(1.0, dtype), graph.shape(shape))


TRANSLATIONS: dict[Callable[..., Any], Translation] = {
    aten.sum.dim_IntList: _reduction("ReduceSum"),
    aten.mean.dim: _reduction("ReduceMean"),
    aten.amax.default: _reduction("ReduceMax"),
    aten.amin.default: _reduction("ReduceMin"),
    aten.any.dim: _any,
    aten.mm.default: _product,
    aten.bmm.default: _product,
    aten.addmm.default: _sum_and_product,
    aten.convolution.default: _convolution,
    aten.max_pool2d.default: _max_pool,
    aten.max_pool3d.default: _max_pool,
    aten.avg_pool2d.default: _average_pool,
    aten._softmax.default: _softmax("Softmax"),
    aten._log_softmax.default: _softmax("LogSoftmax"),
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
    aten.native_layer_norm.default: _layer_norm,
}
