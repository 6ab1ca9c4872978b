"""Forward and backward of a module as one flat graph of ATen operators."""

import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.fx.passes.dialect.common.cse_pass import CSEPass
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from edge_coordinator.onnx_export.decompositions import decomposition_table
from edge_coordinator.onnx_export.trace.subject import Example, Tensors, Traceable
from runtime.models.kernels import plain_kernels

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


@dataclass(frozen=True)
class JointGraph:
    """The traced step: its inputs by role, and its outputs, as nodes of one graph."""

    module: fx.GraphModule
    parameters: list[fx.Node]
    buffers: list[fx.Node]
    masks: list[fx.Node]
    samples: fx.Node
    gradient: fx.Node
    smashed: fx.Node
    updated: list[fx.Node]
    gradients: list[fx.Node]


def trace(subject: Traceable, *, dynamic_batch: bool) -> JointGraph:
    """Trace a step, rewritten to operators that have a translation to ONNX.

    The first pass records forward and autograd; the second removes mutation and decomposes,
    because only what autograd has already left behind may be rewritten.
    """
    flat = subject.example.flat()
    arguments = _symbolic(subject.example) if dynamic_batch else flat
    options: dict[str, Any] = {
        "tracing_mode": "symbolic" if dynamic_batch else "fake",
        "_allow_non_fake_inputs": True,
    }
    with warnings.catch_warnings(), plain_kernels():
        warnings.simplefilter("ignore")  # torch warns of hardware that this machine lacks
        with _PlainPooling():
            recorded = make_fx(_flattened(subject), **options)(*arguments)
        _free_of_strides(recorded)
        functional = functionalize(recorded, remove="mutations")
        table = decomposition_table()
        module = make_fx(functional, decomposition_table=table, **options)(*arguments)
    simplify(module)
    return _by_role(module, subject)


class _PlainPooling(TorchFunctionMode):
    """Give pooling to one place what lies in order: else torch restrides what comes of it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        _types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if func is functional.adaptive_avg_pool2d and args:
            args = (args[0].contiguous(), *args[1:])
        return func(*args, **(kwargs or {}))


def _free_of_strides(recorded: fx.GraphModule) -> None:
    """Take views for reshaping: the second pass need not lay tensors out as the first one did."""
    for node in recorded.graph.nodes:
        if node.target in _VIEWS:
            node.target = aten.reshape.default
    recorded.recompile()


def _flattened(subject: Traceable) -> Callable[..., Tensors]:
    example = subject.example
    num_parameters, num_buffers = len(example.parameters), len(example.buffers)

    def step(*flat: Tensor) -> Tensors:
        first, second = num_parameters, num_parameters + num_buffers
        *masks, x, gradient = flat[second:]
        parameters, buffers = list(flat[:first]), list(flat[first:second])
        return subject.step(parameters, buffers, masks, x, gradient)

    return step


def _symbolic(example: Example) -> Tensors:
    """Fake tensors of the example's shapes, in which the batch has a symbol for its size."""
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    mode.cache_enabled = False  # With a symbol in the shapes its keys cost more than they save.

    def fake(tensor: Tensor, index: int, *, batched: bool) -> Tensor:
        sizes = [DimDynamic.STATIC] * tensor.dim()
        if batched:
            sizes[0] = DimDynamic.DUCK
        context: Any = StatelessSymbolicContext(dynamic_sizes=sizes)
        source = ConstantSource(f"input{index}")
        return mode.from_tensor(tensor, symbolic_context=context, source=source)

    num_state = len(example.parameters) + len(example.buffers)
    flat = enumerate(example.flat())
    return [fake(tensor, index, batched=index >= num_state) for index, tensor in flat]


def _by_role(module: fx.GraphModule, subject: Traceable) -> JointGraph:
    nodes = list(module.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    outputs: list[Any] = list(nodes[-1].args[0])
    first = len(subject.parameter_names)
    second = first + len(subject.buffer_names)
    return JointGraph(
        module=module,
        parameters=inputs[:first],
        buffers=inputs[first:second],
        masks=inputs[second:-2],
        samples=inputs[-2],
        gradient=inputs[-1],
        smashed=outputs[0],
        updated=outputs[1 : 1 + second - first],
        gradients=outputs[1 + second - first :],
    )
