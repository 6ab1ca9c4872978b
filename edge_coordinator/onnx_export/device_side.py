"""Export the device side of a network as ONNX graphs."""

from collections.abc import Sequence

import onnx
import torch
from torch import Tensor, nn

from edge_coordinator.onnx_export.assembly import StepModels
from edge_coordinator.onnx_export.refusal import (
    UnsupportedOperatorError,
    check_operators,
    check_written,
    refuse,
    reject_shared_state,
)
from edge_coordinator.onnx_export.signature import (
    frozen_names,
    graph_spec,
    graph_value,
    saved_bytes,
    state_specs,
)
from edge_coordinator.onnx_export.trace.joint_graph import trace
from edge_coordinator.onnx_export.trace.subject import prepare
from runtime.wire.device_graphs import (
    SAMPLES,
    SMASHED,
    DeviceGraphs,
    DeviceManifest,
    GraphName,
    GraphValue,
)


def export_device_side(
    device_side: nn.Module,
    sample_shape: Sequence[int],
    *,
    batch_size: int,
    sample_dtype: torch.dtype = torch.float32,
) -> DeviceGraphs:
    """Export forward, backward and evaluation of a device side; its weights stay where they are.

    The graphs take batches of any size where the network can be traced so, else of `batch_size`.
    Raises SettingsError, naming the layer and the operator, for what has no ONNX graph.
    """
    reject_shared_state(device_side)
    samples = torch.zeros(batch_size, *sample_shape, dtype=sample_dtype)
    try:
        return _export_dynamic_or_fixed(device_side, samples)
    except Exception as error:  # whatever torch raises, where neither it nor we have a rule
        raise refuse(device_side, samples, error, export_fixed) from error


def _export_dynamic_or_fixed(module: nn.Module, samples: Tensor) -> DeviceGraphs:
    # A batch of one would be taken for a constant.
    batch = samples if len(samples) > 1 else samples.repeat(2, *[1] * (samples.dim() - 1))
    try:
        return _export(module, batch, dynamic_batch=True)
    except UnsupportedOperatorError:
        raise
    except Exception:
        return export_fixed(module, samples)


def export_fixed(module: nn.Module, samples: Tensor) -> DeviceGraphs:
    """Write the graphs for this number of samples only."""
    return _export(module, samples, dynamic_batch=False)


def _export(module: nn.Module, samples: Tensor, *, dynamic_batch: bool) -> DeviceGraphs:
    training = _step_models(module, samples, training=True, dynamic_batch=dynamic_batch)
    evaluation = _step_models(module, samples, training=False, dynamic_batch=dynamic_batch)
    models: dict[GraphName, onnx.ModelProto] = {
        "forward": training.forward(),
        "predict": evaluation.predict(),
    }
    backward = training.backward()
    if backward is not None:
        models["backward"] = backward
    for model in models.values():
        check_written(model)
    payloads = {name: model.SerializeToString(deterministic=True) for name, model in models.items()}
    values = {**evaluation.values(), **training.values()}
    specs = {name: graph_spec(models[name], payloads[name], values) for name in models}
    smashed = graph_value(SMASHED, training.joint.smashed)
    fixed, per_sample = saved_bytes(training.cut.saved)
    manifest = DeviceManifest(
        batch_size=None if _is_dynamic(smashed) else len(samples),
        samples=graph_value(SAMPLES, training.joint.samples),
        smashed=smashed,
        state=state_specs(module),
        masks=tuple(training.subject.dropout.specs),
        forward=specs["forward"],
        backward=specs.get("backward"),
        predict=specs["predict"],
        saved_bytes_fixed=fixed,
        saved_bytes_per_sample=per_sample,
        frozen=frozen_names(module) or None,
    )
    return DeviceGraphs(manifest, payloads)


def _step_models(
    module: nn.Module, samples: Tensor, *, training: bool, dynamic_batch: bool
) -> StepModels:
    subject = prepare(module, samples, training=training)
    joint = trace(subject, dynamic_batch=dynamic_batch)
    check_operators(joint.module)
    if dynamic_batch and not _is_dynamic(graph_value(SMASHED, joint.smashed)):
        raise ValueError("tracing made the batch size a constant")
    return StepModels(subject, joint)


def _is_dynamic(smashed: GraphValue) -> bool:
    return smashed.shape[0] is None
