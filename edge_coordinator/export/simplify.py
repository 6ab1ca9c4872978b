"""Tidy a traced graph: without what functionalisation left, each value once, pooling plain."""

import operator

import torch
from torch import fx
from torch.fx.passes.dialect.common.cse_pass import CSEPass

aten = torch.ops.aten

_IDENTITIES = {
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.detach_.default,
    aten.lift_fresh_copy.default,
}
_VIEWS = {aten.view.default, aten._unsafe_view.default}
_PLAIN_POOLING = {
    aten.max_pool2d_with_indices.default: aten.max_pool2d.default,
    aten.max_pool3d_with_indices.default: aten.max_pool3d.default,
}


def simplify(module: fx.GraphModule) -> None:
    """Simplify the module's graph in place."""
    _drop_identities(module.graph)
    module.graph.eliminate_dead_code()
    shared = CSEPass()(module)
    assert shared is not None
    module.graph = shared.graph_module.graph
    for node in list(module.graph.nodes):
        if node.target in _PLAIN_POOLING:
            _drop_unused_indices(module.graph, node)
    module.graph.set_codegen(fx.graph.CodeGen())
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()


def _drop_identities(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        if node.target in _IDENTITIES:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target in _VIEWS:
            node.target = aten.reshape.default  # strides mean nothing from here on


def _drop_unused_indices(graph: fx.Graph, node: fx.Node) -> None:
    """A max pooling that gives no indices stays on ONNX Runtime's fast path."""
    users = list(node.users)
    if not all(user.target is operator.getitem and user.args[1] == 0 for user in users):
        return
    with graph.inserting_before(node):
        plain = graph.call_function(_PLAIN_POOLING[node.target], node.args, node.kwargs)  # type: ignore[index]
    plain.meta = {"val": users[0].meta.get("val")}
    for user in users:
        user.replace_all_uses_with(plain)
        graph.erase_node(user)
    graph.erase_node(node)
