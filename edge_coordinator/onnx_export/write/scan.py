"""A scan, written out: the operators of its step as often as there are steps."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from edge_coordinator.onnx_export.decompositions import decomposition_table
from edge_coordinator.onnx_export.trace.joint_graph import simplify
from edge_coordinator.onnx_export.trace.scan import STEPS, scan
from edge_coordinator.onnx_export.write.graph_writer import (
    GraphWriter,
    Translation,
    arguments,
    tensor_of,
)

Shape = tuple[int, ...]
SCAN = torch.ops.cpsl.scan.default


def write_scan(
    graph: GraphWriter, node: fx.Node, *, translations: Mapping[Callable[..., Any], Translation]
) -> list[str]:
    """Write a scan; names of its outputs, each stacked along the steps."""
    step, sequences, carried, constants, is_reversed = arguments(node)
    shapes = [tuple(_shape_of_row(each) for each in given) for given in (sequences, carried)]
    fixed_shapes = tuple(tuple(tensor_of(each).shape) for each in constants)
    traced = _trace(str(step), *shapes, fixed_shapes)
    nodes = list(traced.graph.nodes)
    placeholders = [each for each in nodes if each.op == "placeholder"]
    num_steps = int(tensor_of(sequences[0]).shape[0])
    rows = [_split(graph, graph.names[each], num_steps) for each in sequences]
    now, fixed = ([graph.names[each] for each in given] for given in (carried, constants))
    outputs: dict[int, list[str]] = {}
    for at in reversed(range(num_steps)) if is_reversed else range(num_steps):
        graph.names.update(zip(placeholders, [*[r[at] for r in rows], *now, *fixed], strict=True))
        for each in nodes:
            if each.op == "call_function":
                graph.names[each] = translations[each.target](graph, each)
        results = [graph.names[each] for each in nodes[-1].args[0]]
        now, outputs[at] = results[: len(now)], results[len(now) :]
    stacked = zip(*[outputs[at] for at in range(num_steps)], strict=True)
    return [graph.add("Concat", *parts, axis=0) for parts in stacked]


def _split(graph: GraphWriter, name: str, num_steps: int) -> list[str]:
    sizes = graph.integers([1] * num_steps)
    return graph.add_many("Split", name, sizes, axis=0, num_outputs=num_steps)


def _shape_of_row(node: fx.Node) -> Shape:
    """One row of a sequence, or a state, for two samples: no operator names their number."""
    return (1, 2, *tensor_of(node).shape[2:])


@lru_cache(maxsize=64)
def _trace(
    step: str, sequences: Sequence[Shape], carried: Sequence[Shape], constants: Sequence[Shape]
) -> fx.GraphModule:
    """The operators of one step."""
    first, second = len(sequences), len(sequences) + len(carried)

    def flat(*given: Tensor) -> list[Tensor]:
        on, outputs = STEPS[step](
            list(given[:first]), list(given[first:second]), list(given[second:])
        )
        return [*on, *outputs]

    table = decomposition_table()
    given = [torch.zeros(shape) for shape in (*sequences, *carried, *constants)]
    traced = make_fx(flat, decomposition_table=table, tracing_mode="fake")(*given)
    simplify(traced)
    return traced


def expand_scans(part: fx.GraphModule) -> fx.GraphModule:
    """Give a graph whose scans are loops that were run: for an exporter that knows none."""
    placeholders = [node for node in part.graph.nodes if node.op == "placeholder"]
    given = [node.meta["val"] for node in placeholders]
    table = {SCAN: scan._init_fn}
    return make_fx(part, decomposition_table=table, tracing_mode="symbolic")(*given)
