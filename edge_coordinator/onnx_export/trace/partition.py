"""Cut the graph of a step in two: what runs forward, and what waits for the gradient."""

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edge_coordinator.onnx_export.trace.joint_graph import JointGraph

aten = torch.ops.aten


@dataclass(frozen=True)
class Cut:
    """`saved` is what forward gives for backward; `inputs` is what backward takes, with those."""

    saved: list[fx.Node]
    inputs: list[fx.Node]


def is_symbol(node: fx.Node) -> bool:
    """Whether a node is a number that follows the batch size, and no tensor."""
    return isinstance(node.meta.get("val"), torch.SymInt | torch.SymFloat | torch.SymBool)


def batch_multiple(node: fx.Node) -> int | None:
    """How many times the batch size a number is, if it is a whole multiple of it."""
    value = node.meta.get("val")
    if not isinstance(value, torch.SymInt) or len(value.node.expr.free_symbols) != 1:
        return None
    ratio = value.node.expr / next(iter(value.node.expr.free_symbols))
    return int(ratio) if ratio.is_Integer else None


def sources(node: fx.Node) -> list[fx.Node]:
    """What a node is computed from; the batch size is known to either side."""
    return [] if batch_multiple(node) else node.all_input_nodes


def closure(outputs: Iterable[fx.Node]) -> set[fx.Node]:
    """Every node that the outputs are computed from."""
    found: set[fx.Node] = set()
    waiting = list(outputs)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(sources(node))
    return found


def cut(joint: JointGraph) -> Cut:
    """Save what forward computes and backward needs; whatever else backward needs it computes."""
    forward = closure([joint.smashed, *joint.updated])
    waits = _dependents(joint.module.graph, joint.gradient)
    varies = {node for node in joint.module.graph.nodes if node.op == "placeholder"}
    varies |= _dependents(joint.module.graph, *varies)
    inputs: dict[fx.Node, None] = {}
    done: set[fx.Node] = set()
    waiting: list[Any] = list(joint.gradients)
    while waiting:
        node = waiting.pop()
        if node in done:
            continue
        done.add(node)
        crosses = node not in waits and node in varies and _is_kept(node, forward)
        if node.op == "placeholder" or crosses:
            inputs[node] = None
        else:
            waiting.extend(sources(node))
    ordered = [node for node in joint.module.graph.nodes if node in inputs]
    saved = [n for n in ordered if n.op != "placeholder" and n is not joint.smashed]
    return Cut(saved=saved, inputs=ordered)


def _is_kept(node: fx.Node, forward: set[fx.Node]) -> bool:
    """Whether forward computes this tensor anyway: itself, or the operator that gives it."""
    if is_symbol(node):
        return False
    if node.target is operator.getitem:
        return node.args[0] in forward
    return node in forward and not isinstance(node.meta.get("val"), tuple | list)


def _dependents(graph: fx.Graph, *roots: fx.Node) -> set[fx.Node]:
    found = set(roots)
    for node in graph.nodes:
        if any(source in found for source in sources(node)):
            found.add(node)
    return found


def extract(
    joint: JointGraph,
    *,
    inputs: Sequence[fx.Node],
    outputs: Sequence[fx.Node],
    batch_like: fx.Node,
) -> fx.GraphModule:
    """Give the part of the graph that computes the outputs; `batch_like` tells the batch size."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for index, node in enumerate(inputs):
        copies[node] = graph.placeholder(f"input{index}")
        copies[node].meta = dict(node.meta)
    needed = _needed(outputs, set(inputs))
    for node in joint.module.graph.nodes:
        if node not in needed or node in copies:
            continue
        multiple = batch_multiple(node)
        if multiple:
            copies[node] = _batch_size(graph, copies[batch_like], multiple, node)
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in outputs))
    part = fx.GraphModule(joint.module, graph)
    part.graph.lint()
    return part


def _batch_size(graph: fx.Graph, batch_like: fx.Node, multiple: int, original: fx.Node) -> fx.Node:
    size = graph.call_function(aten.sym_size.int, (batch_like, 0))
    size.meta["val"] = batch_like.meta["val"].shape[0]
    if multiple == 1:
        return size
    product = graph.call_function(operator.mul, (size, multiple))
    product.meta["val"] = original.meta["val"]
    return product


def _needed(outputs: Sequence[fx.Node], inputs: set[fx.Node]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    waiting = list(outputs)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend([] if node in inputs else sources(node))
    return found
