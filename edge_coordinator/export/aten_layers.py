"""ATen operators that add up or multiply many values, as ONNX writes them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from edge_coordinator.export.decompositions.windows import per_dimension
from edge_coordinator.export.onnx_writer import GraphWriter, Translation, UntranslatableError

aten = torch.ops.aten


def _tensor(node: Any) -> Tensor:
    tensor: Tensor = node.meta["val"]
    return tensor


def _arguments(node: fx.Node, *defaults: Any) -> list[Any]:
    """All positional arguments; those that were left out by their defaults."""
    return [*node.args, *defaults[len(node.args) :]]


def _reduction(operator_name: str) -> Translation:
    def write(graph: GraphWriter, node: fx.Node) -> Any:
        x, dims, keep = _arguments(node, None, None, False)
        name = graph.operand(x, _tensor(node).dtype)
        axes = [graph.integers(dims)] if dims else []
        return graph.add(operator_name, name, *axes, keepdims=int(keep))

    return write


def _any(graph: GraphWriter, node: fx.Node) -> Any:
    x, dim, keep = _arguments(node, None, None, False)
    found = graph.cast(graph.operand(x, torch.bool), torch.float32)
    found = graph.add("ReduceMax", found, graph.integers([dim]), keepdims=int(keep))
    return graph.cast(found, torch.bool)


def _product(graph: GraphWriter, node: fx.Node) -> Any:
    left, right = node.args
    return graph.add("MatMul", graph.names[left], graph.names[right])  # type: ignore[index]


def _sum_and_product(graph: GraphWriter, node: fx.Node) -> Any:
    added, left, right = (graph.names[argument] for argument in node.args[:3])  # type: ignore[index]
    alpha, beta = (float(node.kwargs.get(key, 1)) for key in ("alpha", "beta"))  # type: ignore[arg-type]
    return graph.add("Gemm", left, right, added, alpha=alpha, beta=beta)


def _convolution(graph: GraphWriter, node: fx.Node) -> Any:
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = node.args
    num_dims = _tensor(x).dim() - 2
    attributes: dict[str, Any] = {
        "strides": per_dimension(stride, num_dims, 1),  # type: ignore[arg-type]
        "pads": per_dimension(padding, num_dims, 0) * 2,  # type: ignore[arg-type]
        "dilations": per_dimension(dilation, num_dims, 1),  # type: ignore[arg-type]
        "group": groups,
    }
    if transposed:
        attributes["output_padding"] = per_dimension(output_padding, num_dims, 0)  # type: ignore[arg-type]
    inputs = [graph.names[value] for value in (x, weight, bias) if value is not None]  # type: ignore[index]
    return graph.add("ConvTranspose" if transposed else "Conv", *inputs, **attributes)


def _max_pool(graph: GraphWriter, node: fx.Node) -> Any:
    x, kernel, stride, padding, dilation, ceil = _arguments(node, None, None, [], 0, 1, False)
    num_dims = _tensor(x).dim() - 2
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


def _average_pool(graph: GraphWriter, node: fx.Node) -> Any:
    x, kernel, stride, padding, ceil, include_pad, divisor = _arguments(
        node, None, None, [], 0, False, True, None
    )
    if ceil or divisor is not None:
        raise UntranslatableError("aten.avg_pool2d with ceil_mode or a divisor")
    num_dims = _tensor(x).dim() - 2
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
    def write(graph: GraphWriter, node: fx.Node) -> Any:
        name = graph.operand(node.args[0], _tensor(node).dtype)
        return graph.add(operator_name, name, axis=node.args[1])

    return write


def _batch_norm(graph: GraphWriter, node: fx.Node) -> Any:
    """In evaluation; in training it is decomposed. A scale or bias that is not there is given."""
    x, weight, bias, mean, variance, _, eps = node.args
    num_channels, dtype = _tensor(mean).shape[0], _tensor(x).dtype
    scale = graph.constant([1.0] * num_channels, dtype) if weight is None else graph.names[weight]  # type: ignore[index]
    shift = graph.constant([0.0] * num_channels, dtype) if bias is None else graph.names[bias]  # type: ignore[index]
    inputs = [graph.names[x], scale, shift, graph.names[mean], graph.names[variance]]  # type: ignore[index]
    return [graph.add("BatchNormalization", *inputs, epsilon=eps)]


def _layer_norm(graph: GraphWriter, node: fx.Node) -> Any:
    x, shape, weight, bias, eps = node.args
    dtype = _tensor(x).dtype
    if dtype != torch.float32:
        raise UntranslatableError(f"aten.native_layer_norm of {dtype}")
    scale = graph.names[weight] if weight is not None else _ones(graph, shape, dtype)  # type: ignore[index]
    inputs = [graph.names[x], scale, *([] if bias is None else [graph.names[bias]])]  # type: ignore[index]
    return graph.add(
        "LayerNormalization", *inputs, axis=-len(shape), epsilon=eps, num_outputs=3  # type: ignore[arg-type]
    )


def _ones(graph: GraphWriter, shape: Any, dtype: torch.dtype) -> Any:
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
    aten._softmax.default: _softmax("Softmax"),  # noqa: SLF001
    aten._log_softmax.default: _softmax("LogSoftmax"),  # noqa: SLF001
    aten._native_batch_norm_legit_no_training.default: _batch_norm,  # noqa: SLF001
    aten.native_layer_norm.default: _layer_norm,
}
