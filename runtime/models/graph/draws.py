"""What draws random numbers in a captured graph: each from its own address.

Dropout, as a layer, as a function or inside of scaled dot product attention, and stochastic depth
take their masks from the step's key and their own names, as everywhere. Whatever else draws (whole
layers' paths, dropout inside of layers that stay whole) has torch's generator set for it just
before, from the key of the first device whose samples it sees.
"""

from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from runtime.models.attention import SeededAttention
from runtime.models.graph.tracer import ENDS, INNER, LABEL
from runtime.models.graph.values import BATCHES, DRAWS, MUTATED, values_of
from runtime.models.seeded import (
    SeededBernoulli,
    SeededDepth,
    SeededDropout,
    SeededGenerator,
)

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
_DEPTH = "torchvision.ops.stochastic_depth.stochastic_depth"
_OF_DEPTH = ("input", "p", "mode", "training")
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
        path = drawn_path(node) if node.op.startswith("call") else ""
        layer = _stand_in(root, node)
        if layer is not None:
            made[path] = layer
            holder.add_module(path.removeprefix(f"{DRAWN}."), layer)
            node.op, node.target = "call_module", path
            node.meta.update({DRAWS: False, MUTATED: set()})
        elif node.meta.get(DRAWS):
            made[path] = SeededGenerator(_label(node))
    return made


def _stand_in(root: nn.Module, node: fx.Node) -> nn.Module | None:
    """The layer that draws in a node's stead, whose arguments become those of the layer."""
    dropout = _dropout_of(root, node)
    if dropout is not None:
        node.args, node.kwargs = (node.args[0] if node.args else node.kwargs["input"],), {}
        return dropout
    if node.target is functional.scaled_dot_product_attention and node.meta.get(DRAWS):
        return _attention(node, training=root.training)
    if _name(node.target) == _DEPTH and node.meta.get(DRAWS):
        return _depth(node, training=root.training)
    if node.target == "bernoulli_" and _is_drawn_by_sample(node):
        p, node.args = 1 - float(node.args[1]), node.args[:1]  # type: ignore[arg-type]
        layer = SeededBernoulli(p, layer=_label(node), channel_wise=False)
        return layer.train(root.training)
    return None


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
    axis = batch_axis(node)
    # Of a mask for channels no axis after these is left.
    dropout.batch_axis = None if channel_wise and axis is not None and axis > 1 else axis
    return dropout.train(root.training)


def _is_drawn_by_sample(node: fx.Node) -> bool:
    """Whether a tensor that nobody else uses is filled with ones and zeros, samples first."""
    if len(node.args) != 2 or not isinstance(node.args[1], float) or not 0 < node.args[1] <= 1:
        return False
    (source,) = node.all_input_nodes
    return len(source.users) == 1 and values_of(node)[0].shape[:1] == (BATCHES[0],)


def _attention(node: fx.Node, *, training: bool) -> SeededAttention:
    """The layer that stands for an attention that drops."""
    given: Any = {**dict(zip(_OF_ATTENTION, node.args, strict=False)), **node.kwargs}
    attention = SeededAttention(float(given["dropout_p"]), layer=_label(node))
    return attention.train(training)


def _depth(node: fx.Node, *, training: bool) -> SeededDepth | None:
    """The layer that stands for a stochastic depth that drops samples, not whole batches."""
    given: Any = {**dict(zip(_OF_DEPTH, node.args, strict=False)), **node.kwargs}
    if given["mode"] != "row" or not float(given["p"]) < 1:
        return None
    node.args, node.kwargs = (given["input"],), {}
    return SeededDepth(float(given["p"]), layer=_label(node)).train(training)


def _name(target: object) -> str:
    """The full name of a function, which is compared so that its library need not be here."""
    return f"{getattr(target, '__module__', '')}.{getattr(target, '__name__', '')}"


def batch_axis(node: fx.Node) -> int | None:
    """The axis of what a node gives that grows with the batch, if one does."""
    first, second = values_of(node)
    grown = [axis for axis in range(first.dim()) if first.shape[axis] != second.shape[axis]]
    return grown[0] if grown else None


def _label(node: fx.Node) -> str:
    label: str = node.meta[LABEL][0] if LABEL in node.meta else node.meta[ENDS][0][0]
    return label.removeprefix(f"{INNER}.")
