"""From a traced step to its ONNX models, with a name for every value that enters or leaves."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx
import torch
from torch import Tensor, fx

from edge_coordinator.onnx_export.signature import graph_value
from edge_coordinator.onnx_export.trace.joint_graph import JointGraph
from edge_coordinator.onnx_export.trace.partition import Cut, cut, extract
from edge_coordinator.onnx_export.trace.subject import Traceable
from edge_coordinator.onnx_export.write.translate import translate
from runtime.wire.device_graphs import (
    GRADIENT,
    SAMPLES,
    SMASHED,
    GraphValue,
    gradient_value,
    mask_value,
    updated_value,
)


@dataclass(frozen=True)
class StepModels:
    """Translates the parts of one traced step."""

    subject: Traceable
    joint: JointGraph

    def predict(self) -> onnx.ModelProto:
        """Samples to smashed data and nothing else."""
        return self._translate(self._forward_inputs, {SMASHED: self.joint.smashed}, self.examples)

    def forward(self) -> onnx.ModelProto:
        """Samples to smashed data, new buffers and what backward needs."""
        return self._translate(self._forward_inputs, self.forward_outputs, self.examples)

    def backward(self) -> onnx.ModelProto | None:
        """What was saved, and the gradient, to the gradients of the parameters."""
        if not self.joint.gradients:
            return None
        examples = {**self.examples, **self._saved_examples()}
        return self._translate(self.cut.inputs, self.gradients, examples)

    @cached_property
    def cut(self) -> Cut:
        """Where forward ends and backward begins."""
        return cut(self.joint)

    @cached_property
    def names(self) -> dict[fx.Node, str]:
        """Names of all nodes that are inputs of a graph."""
        joint, subject = self.joint, self.subject
        names = dict(zip(joint.parameters, subject.parameter_names, strict=True))
        names |= zip(joint.buffers, subject.buffer_names, strict=True)
        layers = [mask_value(spec.layer) for spec in subject.dropout.specs]
        names |= zip(joint.masks, layers, strict=True)
        names |= {node: f"<saved>{index}" for index, node in enumerate(self.cut.saved)}
        names.setdefault(joint.smashed, SMASHED)
        return names | {joint.samples: SAMPLES, joint.gradient: GRADIENT}

    @property
    def gradients(self) -> dict[str, fx.Node]:
        """Outputs of the backward graph."""
        names = [gradient_value(name) for name in self.subject.gradient_names]
        return dict(zip(names, self.joint.gradients, strict=True))

    @property
    def forward_outputs(self) -> dict[str, fx.Node]:
        """Outputs of the forward graph; a buffer that does not change is none of them."""
        joint = self.joint
        outputs = {SMASHED: joint.smashed}
        buffers = zip(self.subject.buffer_names, joint.buffers, joint.updated, strict=True)
        outputs |= {updated_value(name): new for name, old, new in buffers if new is not old}
        return outputs | {self.names[node]: node for node in self.cut.saved}

    def values(self) -> dict[str, GraphValue]:
        """Shape and dtype of every value by its name."""
        nodes = {name: node for node, name in self.names.items()}
        nodes |= self.forward_outputs | self.gradients
        return {name: graph_value(name, node) for name, node in nodes.items()}

    @cached_property
    def examples(self) -> dict[fx.Node, Tensor]:
        """Example tensors of the step's own inputs."""
        nodes = [*self._forward_inputs, self.joint.gradient]
        return dict(zip(nodes, self.subject.example.flat(), strict=True))

    @property
    def _forward_inputs(self) -> list[fx.Node]:
        joint = self.joint
        return [*joint.parameters, *joint.buffers, *joint.masks, joint.samples]

    def _saved_examples(self) -> dict[fx.Node, Tensor]:
        saved = [*self.cut.saved, self.joint.smashed]
        part = self._extract(self._forward_inputs, saved)
        with torch.no_grad():
            values = part(*[self.examples[node] for node in self._forward_inputs])
        return dict(zip(saved, values, strict=True))

    def _extract(self, inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]) -> fx.GraphModule:
        batched = self.joint.gradient if self.joint.gradient in inputs else self.joint.samples
        return extract(self.joint, inputs=inputs, outputs=outputs, batch_like=batched)

    def _translate(
        self,
        inputs: Sequence[fx.Node],
        outputs: dict[str, fx.Node],
        examples: dict[fx.Node, Tensor],
    ) -> onnx.ModelProto:
        part = self._extract(inputs, list(outputs.values()))
        named = {self.names[node]: examples[node] for node in inputs}
        return translate(part, inputs=named, outputs=outputs)
