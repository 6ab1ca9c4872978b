"""Write an ONNX model, one operator after another, from a flat graph of ATen operators."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, fx

from runtime.wire.device_graphs import OPSET

# What every ONNX Runtime since 1.15 reads.
IR_VERSION = 8

_NUMPY_DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float64: np.dtype(np.float64),
    torch.float32: np.dtype(np.float32),
    torch.float16: np.dtype(np.float16),
    torch.int64: np.dtype(np.int64),
    torch.int32: np.dtype(np.int32),
    torch.bool: np.dtype(np.bool_),
}


class UntranslatableError(Exception):
    """An operator, or a form of one, that the table does not have."""


class GraphWriter:
    """Nodes and constants written so far, and the names of the ATen values that they stand for.

    A tensor's name is one string; that of an operator with several results a list of them. A
    number that follows the batch size is an int64 or float32 tensor of shape [1].
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[Any, ...], onnx.TensorProto] = {}
        self._num_values = 0
        self.names: dict[Any, Any] = {}

    def add(self, operator: str, *inputs: str, **attributes: object) -> str:
        """Write an operator; gives the name of its output."""
        return self.add_many(operator, *inputs, num_outputs=1, **attributes)[0]

    def add_many(
        self, operator: str, *inputs: str, num_outputs: int, **attributes: object
    ) -> list[str]:
        """Write an operator that has several outputs; gives their names."""
        outputs = [self._new_name() for _ in range(num_outputs)]
        node = helper.make_node(operator, inputs, outputs)
        node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
        self._nodes.append(node)
        return outputs

    def constant(self, value: object, dtype: torch.dtype) -> str:
        """Name of a constant; equal constants are one."""
        if dtype not in _NUMPY_DTYPES:
            raise UntranslatableError(f"constants of {dtype}")
        return self._array(np.array(value, dtype=_NUMPY_DTYPES[dtype]))

    def integers(self, values: Sequence[int]) -> str:
        """Name of a constant vector of integers: axes, sizes, positions."""
        return self.constant(values, torch.int64)

    def shape(self, sizes: Sequence[int | fx.Node]) -> str:
        """Name of a vector of sizes, some of which may follow the batch."""
        if all(isinstance(size, int) for size in sizes):
            return self.integers([size for size in sizes if isinstance(size, int)])
        parts = [self.names[s] if isinstance(s, fx.Node) else self.integers([s]) for s in sizes]
        return self.add("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]

    def operand(self, argument: object, dtype: torch.dtype) -> str:
        """Name of a tensor or number, cast where it is of another dtype."""
        if not isinstance(argument, fx.Node):
            return self.constant(argument, dtype)
        name, value = self.names[argument], argument.meta["val"]
        if isinstance(value, Tensor):
            return name if value.dtype == dtype else self.cast(name, dtype)
        return self.cast(self.add("Squeeze", name, self.integers([0])), dtype)

    def cast(self, name: str, dtype: torch.dtype) -> str:
        """Name of a tensor as another dtype."""
        return self.add("Cast", name, to=element_type(dtype))

    def attribute(self, node: fx.Node) -> str:
        """Name of a constant tensor that the traced module carries."""
        tensor = self._module
        for part in str(node.target).split("."):
            tensor = getattr(tensor, part)
        assert isinstance(tensor, Tensor)
        node.meta.setdefault("val", tensor)
        return self._array(tensor.detach().numpy())

    def model(self, *, inputs: dict[str, fx.Node], outputs: dict[str, fx.Node]) -> onnx.ModelProto:
        """Give the model, with names for what enters and leaves."""
        self._name_outputs({name: self.names[node] for name, node in outputs.items()})
        graph = helper.make_graph(
            self._nodes,
            "device_side",
            [_value_info(name, node) for name, node in inputs.items()],
            [_value_info(name, node) for name, node in outputs.items()],
            initializer=list(self._constants.values()),
        )
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)

    def _name_outputs(self, values: dict[str, str]) -> None:
        """Rename what operators give; what is an input, a constant or named already is copied.

        Copying all would be simpler, but ONNX Runtime 1.32 then breaks some graphs when it fuses.
        """
        computed = {name for node in self._nodes for name in node.output}
        new_names: dict[str, str] = {}
        for name, value in values.items():
            if value in computed and value not in new_names:
                new_names[value] = name
            else:
                source = new_names.get(value, value)
                self._nodes.append(helper.make_node("Identity", [source], [name]))
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [new_names.get(name, name) for name in names]

    def _array(self, array: NDArray[Any]) -> str:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            contiguous = np.array(array, order="C")
            self._constants[key] = numpy_helper.from_array(contiguous, self._new_name())
        return str(self._constants[key].name)

    def _new_name(self) -> str:
        self._num_values += 1
        return f"v{self._num_values}"


Written = str | list[str]
Translation = Callable[[GraphWriter, fx.Node], Written]


def arguments(node: fx.Node, *defaults: object) -> list[Any]:
    """The positional arguments of a node; those that were left out by their defaults."""
    return [*node.args, *defaults[len(node.args) :]]


def tensor_of(node: object) -> Tensor:
    """What is known of the tensor that a node stands for: its shape and dtype."""
    assert isinstance(node, fx.Node)
    tensor: Tensor = node.meta["val"]
    return tensor


def element_type(dtype: torch.dtype) -> int:
    """ONNX's number of a dtype."""
    if dtype not in _NUMPY_DTYPES:
        raise UntranslatableError(f"tensors of {dtype}")
    return int(helper.np_dtype_to_tensor_dtype(_NUMPY_DTYPES[dtype]))


def _value_info(name: str, node: fx.Node) -> onnx.ValueInfoProto:
    tensor: Tensor = node.meta["val"]
    sizes = [size if isinstance(size, int) else _symbol_name(size) for size in tensor.shape]
    return helper.make_tensor_value_info(name, element_type(tensor.dtype), sizes)


def _symbol_name(size: torch.SymInt) -> str:
    """One name for one size: ONNX Runtime takes equal names for equal sizes."""
    expression = size.node.expr
    return str(expression.subs(dict.fromkeys(expression.free_symbols, "batch")))
