"""What goes into a manifest, read from a traced graph and its ONNX models."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, fx, nn

from runtime.wire.device_graphs import DType, GraphSpec, GraphValue, StateSpec

_DTYPES: dict[torch.dtype, DType] = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float16",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.bool: "bool",
}


def graph_value(name: str, node: fx.Node) -> GraphValue:
    """Shape and dtype of a node's tensor, with None where it follows the batch size."""
    tensor: Tensor = node.meta["val"]
    shape = tuple(int(size) if isinstance(size, int) else None for size in tensor.shape)
    return GraphValue(name=name, shape=shape, dtype=dtype_name(tensor.dtype))


def dtype_name(dtype: torch.dtype) -> DType:
    """The manifest's name of a dtype."""
    if dtype not in _DTYPES:
        raise NotImplementedError(f"tensors of {dtype} do not travel")
    return _DTYPES[dtype]


def state_specs(module: nn.Module) -> tuple[StateSpec, ...]:
    """The module's parameters and buffers in the order of its state dict."""
    return tuple(
        StateSpec(
            name=name,
            shape=tuple(tensor.shape),
            dtype=dtype_name(tensor.dtype),
            trained=tensor.requires_grad,
        )
        for name, tensor in module.state_dict(keep_vars=True).items()
    )


def frozen_names(module: nn.Module) -> tuple[str, ...]:
    """Names of the parameters that do not learn."""
    state = module.state_dict(keep_vars=True)
    parameters = {name: each for name, each in state.items() if isinstance(each, nn.Parameter)}
    return tuple(name for name, each in parameters.items() if not each.requires_grad)


def graph_spec(
    model: onnx.ModelProto, payload: bytes, values: Mapping[str, GraphValue]
) -> GraphSpec:
    """What the model itself says it takes and gives, with shapes from the traced graph."""
    return GraphSpec(
        inputs=tuple(values[value.name] for value in model.graph.input),
        outputs=tuple(values[value.name] for value in model.graph.output),
        num_bytes=len(payload),
        sha256=hashlib.sha256(payload).hexdigest(),
    )


def saved_bytes(saved: Sequence[fx.Node]) -> tuple[int, int]:
    """Bytes that forward keeps for backward: whatever the batch, and for each of its samples."""
    fixed = per_sample = 0
    for node in saved:
        tensor: Tensor = node.meta["val"]
        sizes = [size for size in tensor.shape if isinstance(size, int)]
        num_bytes = math.prod(sizes) * tensor.dtype.itemsize
        shape: list[Any] = list(tensor.shape)
        multiples = [size for size in shape if isinstance(size, torch.SymInt)]
        for size in multiples:
            symbols = size.node.expr.free_symbols
            num_bytes *= int(size.node.expr.subs(dict.fromkeys(symbols, 1)))
        if multiples:
            per_sample += num_bytes
        else:
            fixed += num_bytes
    return fixed, per_sample
