"""Export a network for use, whole or a half: one graph in evaluation mode, its weights inside."""

from collections.abc import Mapping, Sequence

import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from edge_coordinator.onnx_export.assembly import StepModels
from edge_coordinator.onnx_export.refusal import check_operators
from edge_coordinator.onnx_export.trace.joint_graph import trace
from edge_coordinator.onnx_export.trace.subject import prepare
from runtime.wire.device_graphs import SAMPLES, SMASHED

INPUT, OUTPUT = "input", "output"


def export_whole(
    network: nn.Module,
    sample_shape: Sequence[int],
    *,
    metadata: Mapping[str, str],
    names: tuple[str, str] = (INPUT, OUTPUT),
) -> bytes:
    """Export from the first of `names` to the second, for any number of samples.

    These words of `metadata` stand beside it.

    Initializers have the names of the state dict. Raises whatever torch does, or
    UnsupportedOperatorError, where the network cannot be traced or written so.
    """
    subject = prepare(network, torch.zeros(2, *sample_shape), training=False)
    joint = trace(subject, dynamic_batch=True)
    check_operators(joint.module)
    model = StepModels(subject, joint).predict()
    state = network.state_dict()
    used = {name for node in model.graph.node for name in node.input}
    given = [value for value in model.graph.input if value.name == SAMPLES]
    kept = [value.name for value in model.graph.input if value.name in used & state.keys()]
    del model.graph.input[:]
    model.graph.input.extend(given)
    model.graph.initializer.extend(
        numpy_helper.from_array(state[name].numpy(force=True), name) for name in kept
    )
    _rename(model, {SAMPLES: names[0], SMASHED: names[1]})
    model.graph.name = "network"
    helper.set_model_props(model, dict(metadata))
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _rename(model: onnx.ModelProto, new: Mapping[str, str]) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [new.get(name, name) for name in names]
    for value in (*model.graph.input, *model.graph.output):
        value.name = new.get(value.name, value.name)
