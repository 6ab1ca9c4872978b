"""The operators that a device runs for a coordinator: plain arithmetic, whose cost shapes tell.

No control flow, no loops over a sequence, no random numbers, no text, nothing that reads a file.
"""

import math
from collections.abc import Mapping

from google.protobuf.message import Message

Shapes = Mapping[str, tuple[int, ...]]

_PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
_POOLS = ("AveragePool", "LpPool", "MaxPool")
_OF_EACH_VALUE = (
    *("Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BatchNormalization"),
    *("Cast", "CastLike", "Ceil", "Celu", "Clip", "Concat", "Constant", "ConstantOfShape", "Cos"),
    *("Cosh", "DepthToSpace", "Div", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten"),
    *("Floor", "Gather", "GatherElements", "GatherND", "Gelu", "GlobalAveragePool"),
    *("GlobalMaxPool", "Greater", "GreaterOrEqual", "GroupNormalization", "HardSigmoid"),
    *("HardSwish", "Hardmax", "Identity", "InstanceNormalization", "IsInf", "IsNaN"),
    *("LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax"),
    *("LpNormalization", "Max", "Mean", "MeanVarianceNormalization", "Min", "Mish", "Mod", "Mul"),
    *("Neg", "Not", "OneHot", "Or", "PRelu", "Pad", "Pow", "Range", "Reciprocal", "ReduceL1"),
    *("ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "Round"),
    *("ScatterElements", "ScatterND", "Selu", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh"),
    *("Size", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt"),
    *("Squeeze", "Sub", "Sum", "Tan", "Tanh", "ThresholdedRelu", "Tile", "Transpose", "Trilu"),
    *("Unsqueeze", "Where", "Xor"),
)
ALLOWED = frozenset((*_PRODUCTS, *_POOLS, *_OF_EACH_VALUE))


def flop_of(node: Message, shapes: Shapes) -> float:
    """Floating-point operations of one node, by the shapes of what it takes and gives.

    Each value that is neither multiplied nor pooled counts as one operation.
    """
    taken = [math.prod(shapes[name]) for name in node.input if name]
    given = [math.prod(shapes[name]) for name in node.output if name]
    return 2.0 * _multiplications(node, shapes) + sum(taken) + sum(given)


def _multiplications(node: Message, shapes: Shapes) -> int:
    if node.op_type not in (*_PRODUCTS, *_POOLS):
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
