"""What the operators that a device runs for a coordinator cost, by their shapes."""

import math
from collections.abc import Mapping

from google.protobuf.message import Message

from runtime.wire.device_graphs import POOLS, PRODUCTS

Shapes = Mapping[str, tuple[int, ...]]


def flop_of(node: Message, shapes: Shapes) -> float:
    """Floating-point operations of one node, by the shapes of what it takes and gives.

    Each value that is neither multiplied nor pooled counts as one operation.
    """
    taken = [math.prod(shapes[name]) for name in node.input if name]
    given = [math.prod(shapes[name]) for name in node.output if name]
    return 2.0 * _multiplications(node, shapes) + sum(taken) + sum(given)


def _multiplications(node: Message, shapes: Shapes) -> int:
    if node.op_type not in (*PRODUCTS, *POOLS):
        return 0
    first, result = shapes[node.input[0]], shapes[node.output[0]]
    num_results = math.prod(result)
    match node.op_type:
        case "MatMul":
            return num_results * first[-1]
        case "Gemm":
            return num_results * (math.prod(first) // max(1, result[0]))
        case "Conv":
            weight = shapes[node.input[1]]
            return num_results * math.prod(weight[1:])
        case "ConvTranspose":
            weight = shapes[node.input[1]]
            return math.prod(first) * math.prod(weight[1:])
        case _:
            window = next((a.ints for a in node.attribute if a.name == "kernel_shape"), ())
            return num_results * math.prod(window)
