"""The shape of every value of a graph, for one size of batch, found out before it runs.

ONNX Runtime infers the shapes itself: a session is made of a copy of the graph that gives every
value as an output, without optimisation. Such a session computes and allocates nothing, whatever
the graph would. Where a shape follows from numbers that the graph computes of other shapes, these
few numbers are computed, and it is asked again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from google.protobuf.message import Message
from numpy.typing import NDArray

from device_agent.engines.graph_reader import read_model
from runtime.errors import MalformedMessageError

ITEM_BYTES = {
    "tensor(bool)": 1,
    "tensor(int8)": 1,
    "tensor(uint8)": 1,
    "tensor(float16)": 2,
    "tensor(int32)": 4,
    "tensor(float)": 4,
    "tensor(int64)": 8,
    "tensor(double)": 8,
}
_ELEMENT_TYPES = {"float32": 1, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11}
_MOST_NUMBERS = 64
"""In a value that is computed on the way to a shape."""
_MOST_PASSES = 8
_FATAL = 4


@dataclass(frozen=True)
class ValueForm:
    """A value's shape, with None for what is not known, and ONNX Runtime's word for its type."""

    shape: tuple[int | None, ...]
    type: str

    @property
    def is_known(self) -> bool:
        """Whether its bytes can be told."""
        return None not in self.shape and self.type in ITEM_BYTES

    @property
    def num_items(self) -> int:
        """Numbers in it, where it is known."""
        return math.prod(size or 0 for size in self.shape)


Forms = dict[str, ValueForm]


def forms_of(payload: bytes, batch_size: int, before: Forms | None = None) -> Forms:
    """Every value that a graph takes, computes or gives, by name.

    `before` are those of the graph that runs before it, of which it takes some.
    MalformedMessageError where a shape does not follow from the shapes of the inputs.
    """
    model = read_model(payload)
    _pin(model, batch_size, before or {})
    forms: Forms = {}
    for _ in range(_MOST_PASSES):
        forms |= _inferred(model)
        if all(form.is_known for form in forms.values()):
            return forms
        if not _fold(model, forms):
            break
    name, form = next((name, form) for name, form in forms.items() if not form.is_known)
    raise MalformedMessageError(
        f"value {name!r} of a graph has no fixed shape ({form.type}, {form.shape})"
    )


def _pin(model: Message, batch_size: int, before: Forms) -> None:
    """Have every dimension of the inputs be a number; those of the outputs follow."""
    for value in model.graph.input:
        dimensions = value.type.tensor_type.shape.dim
        known = before[value.name].shape if value.name in before else [batch_size] * len(dimensions)
        for dimension, size in zip(dimensions, known, strict=True):
            if dimension.dim_param:
                dimension.Clear()
                dimension.dim_value = size
    for value in model.graph.output:
        for dimension in value.type.tensor_type.shape.dim:
            dimension.ClearField("dim_param")


def _inferred(model: Message) -> Forms:
    open_about = type(model)()
    open_about.CopyFrom(model)
    given = {value.name for value in model.graph.output}
    inner = (name for node in model.graph.node for name in node.output if name not in given)
    for name in filter(None, inner):
        open_about.graph.output.add(name=name)
    session = _session(open_about)
    return {
        value.name: ValueForm(
            tuple(size if isinstance(size, int) else None for size in value.shape), value.type
        )
        for value in (*session.get_inputs(), *session.get_outputs())
    }


def _fold(model: Message, forms: Forms) -> bool:
    """Put the numbers that follow from known shapes in the place of what computes them."""
    constants = {tensor.name for tensor in model.graph.initializer}
    given = {value.name for value in model.graph.output}
    kept, folded, found = [], [], dict[str, NDArray[Any]]()
    for node in model.graph.node:
        outputs = [name for name in node.output if name]
        is_small = all(forms[n].is_known and forms[n].num_items <= _MOST_NUMBERS for n in outputs)
        if not is_small or not given.isdisjoint(outputs):
            kept.append(node)
        elif node.op_type == "Shape" and forms[node.input[0]].is_known:
            between = {attribute.name: attribute.i for attribute in node.attribute}
            sizes = forms[node.input[0]].shape[between.get("start", 0) : between.get("end")]
            found[outputs[0]] = np.array(sizes, np.int64)
            constants.update(outputs)
        elif node.op_type != "Shape" and all(name in constants for name in node.input if name):
            folded.append(node)
            constants.update(outputs)
        else:
            kept.append(node)
    if not found and not folded:
        return False
    for name, array in found.items():
        model.graph.initializer.add().CopyFrom(_tensor(model, name, array))
    for name, array in _computed(model, folded).items():
        model.graph.initializer.add().CopyFrom(_tensor(model, name, array))
    _replace_nodes(model, kept)
    return True


def _computed(model: Message, nodes: Sequence[Message]) -> dict[str, NDArray[Any]]:
    """Run nodes that hang on constants only."""
    names = [name for node in nodes for name in node.output if name]
    if not names:
        return {}
    part = type(model)()
    part.CopyFrom(model)
    part.graph.ClearField("input")
    part.graph.ClearField("output")
    _replace_nodes(part, nodes)
    for name in names:
        part.graph.output.add(name=name)
    return dict(zip(names, _session(part).run(names, {}), strict=True))


def _replace_nodes(model: Message, nodes: Sequence[Message]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    model.graph.ClearField("node")
    model.graph.node.extend(copies)


def _tensor(model: Message, name: str, array: NDArray[Any]) -> Message:
    tensor: Message = type(model.graph.initializer.add())()
    del model.graph.initializer[-1]
    tensor.name, tensor.data_type = name, _ELEMENT_TYPES[array.dtype.name]
    tensor.dims.extend(array.shape)
    tensor.raw_data = array.tobytes()
    return tensor


def _session(model: Message) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _FATAL
    try:
        return ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its errors have no common class but this one
        raise MalformedMessageError(f"not a graph whose shapes can be told: {error}") from error
