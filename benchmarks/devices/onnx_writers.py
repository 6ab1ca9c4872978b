"""Our writer of ONNX graphs beside torch's.

    python -m benchmarks.devices.onnx_writers lenet:7 resnet8:4

Both get the traced step of a device side and write its forward and backward: ours straight from
the trace, torch's from an ExportedProgram of it. Prints seconds of the trace, which either needs,
and of each writer (torch's also without the making of the ExportedProgram: no way to make one
could be faster), how far the results are apart, and how many times as long as ours a whole export
takes with torch's writer, and with what is left of it.
"""

import argparse
import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import onnx
import torch
from torch import Tensor, fx

from device_agent.engines.onnx_session import Session, to_value
from edge_coordinator.onnx_export.assembly import StepModels
from edge_coordinator.onnx_export.trace.joint_graph import trace
from edge_coordinator.onnx_export.trace.partition import extract
from edge_coordinator.onnx_export.trace.subject import prepare
from edge_coordinator.onnx_export.write.translate import translate
from runtime.models.load import input_shape_of, load_network, split
from runtime.wire.device_graphs import OPSET, GraphSpec, GraphValue

BATCH_SIZE = 16
LINE = "{:>12} {:>9} {:>8} {:>9} {:>8} {:>11} {:>6} {:>6}"

Result = TypeVar("Result")


@dataclass(frozen=True)
class ExportedPart:
    """One graph to write: its examples by name, and the nodes that it gives by name."""

    module: fx.GraphModule
    inputs: dict[str, Tensor]
    outputs: dict[str, fx.Node]


def main() -> None:
    """Time both writers on some cuts of built-in networks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cuts", nargs="*", default=["lenet:1", "lenet:7", "lenet:11", "resnet8:4"])
    headings = ("cut", "trace, s", "ours, s", "torch, s", "bare, s", "difference", "times", "bare")
    logging.disable(logging.WARNING)
    _compare("lenet", 1, show=False)  # The imports.
    print(LINE.format(*headings))
    for each in parser.parse_args().cuts:
        network, _, cut = each.partition(":")
        _compare(network, int(cut), show=True)


def _compare(name: str, cut: int, *, show: bool) -> None:
    models, trace_s = _timed(lambda: _traced(name, cut))
    parts = _parts(models)
    ours, ours_s = _timed(
        lambda: [translate(each.module, inputs=each.inputs, outputs=each.outputs) for each in parts]
    )
    programs, programs_s = _timed(lambda: [_program(each) for each in parts])
    theirs, bare_s = _timed(
        lambda: [_by_torch(each, program) for each, program in zip(parts, programs, strict=True)]
    )
    apart = max(
        _difference(each.inputs, one, other)
        for each, one, other in zip(parts, ours, theirs, strict=True)
    )
    whole_s, torch_s = trace_s + ours_s, programs_s + bare_s
    seconds = (f"{s:.2f}" for s in (trace_s, ours_s, torch_s, bare_s))
    times = (f"{(trace_s + s) / whole_s:.1f}" for s in (torch_s, bare_s))
    if show:
        print(LINE.format(f"{name}:{cut}", *seconds, f"{apart:.1e}", *times), flush=True)


def _traced(name: str, cut: int) -> StepModels:
    network = load_network(name, {}, seed=0)
    device_side, _ = split(network, cut)
    samples = torch.randn(BATCH_SIZE, *input_shape_of(network))
    subject = prepare(device_side, samples, training=True)
    return StepModels(subject, trace(subject, dynamic_batch=True))


def _parts(models: StepModels) -> list[ExportedPart]:
    joint, saved = models.joint, models.cut.saved
    entering = [*joint.parameters, *joint.buffers, *joint.masks, joint.samples]
    keeping = extract(
        joint, inputs=entering, outputs=[*saved, joint.smashed], batch_like=joint.samples
    )
    examples = dict(models.examples)
    with torch.no_grad():
        kept = keeping(*[examples[node] for node in entering])
    examples |= zip([*saved, joint.smashed], kept, strict=True)
    examples[joint.gradient] = torch.randn_like(examples[joint.gradient])
    parts = []
    for inputs, outputs in (
        (entering, models.forward_outputs),
        (models.cut.inputs, models.gradients),
    ):
        like = joint.gradient if joint.gradient in inputs else joint.samples
        part = extract(joint, inputs=inputs, outputs=[*outputs.values()], batch_like=like)
        named = {models.names[node]: examples[node] for node in inputs}
        parts.append(ExportedPart(part, named, outputs))
    return parts


def _program(part: ExportedPart) -> torch.export.ExportedProgram:
    nodes = [node for node in part.module.graph.nodes if node.op == "placeholder"]
    shapes = [
        {
            dim: torch.export.Dim.AUTO
            for dim, size in enumerate(node.meta["val"].shape)
            if isinstance(size, torch.SymInt)
        }
        for node in nodes
    ]
    with _silence():
        return torch.export.export(
            part.module, tuple(part.inputs.values()), dynamic_shapes=tuple(shapes)
        )


def _by_torch(part: ExportedPart, program: torch.export.ExportedProgram) -> onnx.ModelProto:
    with _silence():
        written: Any = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            external_data=False,
            verbose=False,
        )
    model: onnx.ModelProto = written.model_proto
    return model


def _difference(inputs: dict[str, Tensor], one: onnx.ModelProto, other: onnx.ModelProto) -> float:
    """The largest difference of any result, relative to the largest number in it."""
    found, expected = (_run(model, inputs) for model in (one, other))
    return max(
        float(np.abs(a - b).max() / (np.abs(b).max() or 1))
        for a, b in zip(found, expected, strict=True)
        if a.dtype.kind == "f"
    )


def _run(model: onnx.ModelProto, inputs: dict[str, Tensor]) -> list[Any]:
    payload = model.SerializeToString()
    inner = [GraphValue(name=each.name, shape=(), dtype="float32") for each in model.graph.input]
    outer = [GraphValue(name=each.name, shape=(), dtype="float32") for each in model.graph.output]
    spec = GraphSpec(
        inputs=tuple(inner), outputs=tuple(outer), num_bytes=len(payload), sha256="0" * 64
    )
    session = Session(payload, spec, num_threads=1)
    values = {name: to_value(value.detach().contiguous().numpy()) for name, value in inputs.items()}
    return [value.numpy() for value in session.run(values).values()]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _timed(make: Callable[[], Result]) -> tuple[Result, float]:
    start_s = perf_counter()
    result = make()
    return result, perf_counter() - start_s


if __name__ == "__main__":
    main()
