"""What draws random numbers in a captured graph: each from its own address.

Dropout, as a layer, as a function or inside of scaled dot product attention, takes its mask from
the step's key and its own name, as everywhere. Whatever else draws (whole layers' paths, dropout
inside of layers that stay whole) has torch's generator set for it just before, from the key of the
first device whose samples it sees.
"""

from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from runtime.models.attention import SeededAttention
from runtime.models.graph.tracer import ENDS, INNER, LABEL
from runtime.models.graph.values import DRAWS, values_of
from runtime.models.seeded import SeededDropout, SeededGenerator

DRAWN = "drawn"
_FUNCTIONS = {
    functional.dropout: False,
    torch.dropout: False,
    functional.dropout1d: True,
    functional.dropout2d: True,
    functional.dropout3d: True,
}
"""Dropout as a function, and whether it drops whole channels."""
_ARGUMENTS = ("input", "p", "training")
_OF_ATTENTION = ("query", "key", "value", "attn_mask", "dropout_p")


def drawn_path(node: fx.Node) -> str:
    """Where what seeds a node hangs: beside the user's own modules, without any state."""
    return f"{DRAWN}.{_label(node).replace('.', '-')}"


def seed_draws(root: nn.Module, graph: fx.Graph) -> dict[str, nn.Module]:
    """Let every dropout of a graph draw by address, in place; what else draws gets a generator.

    Returns the new modules by their paths.
    """
    made: dict[str, nn.Module] = {}
    holder = nn.Module()
    root.add_module(DRAWN, holder)
    for node in graph.nodes:
        dropout = _dropout_of(root, node)
        if dropout is not None:
            path = drawn_path(node)
            made[path] = dropout
            holder.add_module(path.removeprefix(f"{DRAWN}."), dropout)
            source = node.args[0] if node.args else node.kwargs["input"]
            node.op, node.target, node.args, node.kwargs = "call_module", path, (source,), {}
            node.meta[DRAWS] = False
        elif node.target is functional.scaled_dot_product_attention and node.meta.get(DRAWS):
            path = drawn_path(node)
            made[path] = _attention(node, training=root.training)
            holder.add_module(path.removeprefix(f"{DRAWN}."), made[path])
            node.op, node.target = "call_module", path
            node.meta[DRAWS] = False
        elif node.meta.get(DRAWS):
            made[drawn_path(node)] = SeededGenerator(_label(node))
    return made


def _dropout_of(root: nn.Module, node: fx.Node) -> SeededDropout | None:
    """The layer that stands for a dropout of the graph, if it is one that drops in training."""
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        if not isinstance(module, SeededDropout):
            return None
        p, channel_wise = module.p, module.channel_wise
    elif node.op == "call_function" and node.target in _FUNCTIONS:
        given: Any = {**dict(zip(_ARGUMENTS, node.args, strict=False)), **node.kwargs}
        p, channel_wise = float(given.get("p", 0.5)), _FUNCTIONS[node.target]
        if given.get("training", True) is not root.training or not 0 <= p < 1:
            return None
    else:
        return None
    dropout = SeededDropout(p, layer=_label(node), channel_wise=channel_wise)
    dropout.batch_axis = batch_axis(node)
    return dropout.train(root.training)


def _attention(node: fx.Node, *, training: bool) -> SeededAttention:
    """The layer that stands for an attention that drops."""
    given: Any = {**dict(zip(_OF_ATTENTION, node.args, strict=False)), **node.kwargs}
    attention = SeededAttention(float(given["dropout_p"]), layer=_label(node))
    return attention.train(training)


def batch_axis(node: fx.Node) -> int:
    """The axis of what a node gives that grows with the batch."""
    first, second = values_of(node)
    grown = [axis for axis in range(first.dim()) if first.shape[axis] != second.shape[axis]]
    return grown[0] if grown else 0


def _label(node: fx.Node) -> str:
    label: str = node.meta[LABEL][0] if LABEL in node.meta else node.meta[ENDS][0][0]
    return label.removeprefix(f"{INNER}.")
