"""From a flat graph of ATen operators to an ONNX model, fast where it can be.

Torch's exporter knows every operator, but traces the graph three times more: tens of seconds for
the backward of a small residual network. Where a table of ours knows all operators, as it does
for common networks, it is written down directly.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import onnx
from torch import Tensor, fx

from edge_coordinator.onnx_export.write import (
    aten_elementwise,
    aten_indexing,
    aten_layers,
    aten_shapes,
)
from edge_coordinator.onnx_export.write.graph_writer import (
    GraphWriter,
    Translation,
    UntranslatableError,
)
from edge_coordinator.onnx_export.write.scan import SCAN, expand_scans, write_scan

TRANSLATIONS: dict[Callable[..., Any], Translation] = {
    **aten_elementwise.TRANSLATIONS,
    **aten_shapes.TRANSLATIONS,
    **aten_indexing.TRANSLATIONS,
    **aten_layers.TRANSLATIONS,
}
TRANSLATIONS[SCAN] = partial(write_scan, translations=TRANSLATIONS)


def translate(
    part: fx.GraphModule, *, inputs: Mapping[str, Tensor], outputs: Mapping[str, fx.Node]
) -> onnx.ModelProto:
    """Translate with standard operators only; `inputs` are names and examples in their order."""
    try:
        return _write(part, list(inputs), list(outputs))
    except UntranslatableError:
        # Its imports take a fifth of a second, and most networks never need it.
        from edge_coordinator.onnx_export.write import by_torch  # noqa: PLC0415

        if any(node.target is SCAN for node in part.graph.nodes):
            part = expand_scans(part)
        return by_torch.translate(part, inputs=inputs, outputs=list(outputs))


def _write(part: fx.GraphModule, inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    graph = GraphWriter(part)
    nodes = list(part.graph.nodes)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    graph.names.update(zip(placeholders, inputs, strict=True))
    for node in nodes:
        if node.op == "get_attr":
            graph.names[node] = graph.attribute(node)
        elif node.op == "call_function":
            if node.target not in TRANSLATIONS:
                raise UntranslatableError(str(node.target))
            graph.names[node] = TRANSLATIONS[node.target](graph, node)
    results: Any = nodes[-1].args[0]
    return graph.model(
        inputs=dict(zip(inputs, placeholders, strict=True)),
        outputs=dict(zip(outputs, results, strict=True)),
    )
