"""From a flat graph of ATen operators to an ONNX model by torch's own exporter."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir
import torch
from onnx import numpy_helper
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    DeduplicateInitializersPass,
    IdentityEliminationPass,
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
)
from onnxscript.optimizer import fold_constants
from torch import Tensor, fx

from runtime.wire.device_graphs import OPSET

# A constant of one repeated value, from this size on, is written as an operator that fills.
_FILL_FROM_ITEMS = 256


def translate(
    part: fx.GraphModule, *, inputs: Mapping[str, Tensor], outputs: Sequence[str]
) -> onnx.ModelProto:
    """Translate with standard operators only, and without what only debugging needs."""
    placeholders = (node for node in part.graph.nodes if node.op == "placeholder")
    dynamic = tuple(_dynamic_dims(node) for node in placeholders)
    with _silence(), torch.no_grad():
        program = torch.onnx.export(
            part,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dynamic if any(dynamic) else None,
            external_data=False,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    _fold(program.model)
    model = program.model_proto
    _name_outputs(model, outputs)
    _fill_constants(model)
    _strip(model)
    return model


def _dynamic_dims(node: fx.Node) -> dict[int, object]:
    sizes = enumerate(node.meta["val"].shape)
    dynamic = [dim for dim, size in sizes if isinstance(size, torch.SymInt)]
    return dict.fromkeys(dynamic, torch.export.Dim.DYNAMIC)


def _fold(model: onnx_ir.Model) -> None:
    """Compute what is constant and each value once.

    Torch's own `optimize` does more, which gains nothing at run time and takes far longer.
    """
    fold_constants(model, onnx_shape_inference=False)
    for tidy in (
        RemoveUnusedNodesPass(),
        CommonSubexpressionEliminationPass(),
        LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=0),
        DeduplicateInitializersPass(),
        IdentityEliminationPass(),
        RemoveUnusedNodesPass(),
    ):
        tidy(model)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Torch's exporter reports its progress and its future plans on every call."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _name_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Give every output its own name, also where two of them are one value."""
    for value, name in zip(model.graph.output, names, strict=True):
        if value.name != name:
            model.graph.node.append(onnx.helper.make_node("Identity", [value.name], [name]))
            value.name = name


def _fill_constants(model: onnx.ModelProto) -> None:
    kept, fills = [], []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.size < _FILL_FROM_ITEMS or not (array == array.flat[0]).all():
            kept.append(tensor)
            continue
        shape_name = f"{tensor.name}_shape"
        value = numpy_helper.from_array(array.reshape(-1)[:1], "value")
        fills.append(
            onnx.helper.make_node("ConstantOfShape", [shape_name], [tensor.name], value=value)
        )
        kept.append(numpy_helper.from_array(np.array(array.shape, np.int64), shape_name))
    if fills:
        nodes = [*fills, *model.graph.node]
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(kept)


def _strip(model: onnx.ModelProto) -> None:
    """Remove traces of the source, which differ from run to run and are nobody's business."""
    graph = model.graph
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.input, *graph.output, *graph.initializer):
        del value.metadata_props[:]
    del graph.value_info[:], graph.metadata_props[:], model.metadata_props[:]
    model.doc_string = graph.doc_string = ""
