"""Record what a module computes as a graph, by running it on stand-ins that know their values.

Modules of torch itself stay whole in the graph, so that they train, evaluate, count and draw as
ever; the user's own are gone through. A stand-in answers what the code asks of sizes and types,
so a condition on them is no obstacle. A module whose code cannot be gone through stays whole.
"""

import operator
import sysconfig
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from runtime.models.attention import SeededMultiheadAttention
from runtime.models.graph.inputs import Given, call
from runtime.models.graph.unseen_calls import COMPARISONS, calls_recorded, certain_of_draw
from runtime.models.graph.values import NeedsNumbersError, Tried, evaluate, values_of
from runtime.models.recurrent import SeededRecurrent
from runtime.models.seeded import SeededDropout

_GONE_THROUGH = (
    nn.Sequential,
    nn.TransformerEncoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoder,
    nn.TransformerDecoderLayer,
)
_SEEDED = (SeededDropout, SeededMultiheadAttention, SeededRecurrent)
_one_at_a_time = threading.Lock()
_LIBRARIES = (
    str(Path(torch.__file__).parent),
    str(Path(__file__).parents[2]),
    sysconfig.get_path("stdlib"),
)
INNER = "net"
"""Where the user's module hangs below the traced one."""
ENDS = "ends"
LABEL = "label"
_KNOWN = ("dtype", "device", "layout", "ndim")
"""What a tensor is, whatever the samples."""


class TraceFailedError(Exception):
    """The module's own code cannot be recorded."""


class _Root(nn.Module):
    """Gives a module the samples, and takes of its outputs the one that is trained on."""

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.net = module
        self._names = names

    def forward(self, samples: Any) -> object:  # noqa: ANN401 - a tensor, or a dictionary of them
        if self._names:
            return main_output(call(self.net, {name: samples[name] for name in self._names}))
        return main_output(self.net(samples))


def main_output(outputs: object) -> object:
    """Choose what to train on: `logits`, `out` or else the first of a dictionary or a tuple."""
    value = values_of(outputs.node)[0] if isinstance(outputs, fx.Proxy) else outputs
    if isinstance(value, dict):
        key = next((name for name in ("logits", "out") if name in value), next(iter(value), None))
        return outputs[key]  # type: ignore[index]
    if isinstance(value, tuple | list) and value:
        return outputs[0]  # type: ignore[index]
    return outputs


class _Value(fx.Proxy):
    """A stand-in that knows what it would be."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name in _KNOWN and isinstance(value := values_of(self.node)[0], torch.Tensor):
            return getattr(value, name)
        return super().__getattr__(name)

    def __setitem__(self, key: Any, value: Any) -> None:  # noqa: ANN401
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})

    def __len__(self) -> int:
        return int(constant(self, len))

    def __index__(self) -> int:
        return int(constant(self, int))

    def __int__(self) -> int:
        return int(constant(self, int))

    def __float__(self) -> float:
        return float(constant(self, float))

    def __contains__(self, key: object) -> bool:
        return bool(constant(self, lambda value: key in value))


def constant(proxy: fx.Proxy, ask: Callable[[Any], Any]) -> Any:  # noqa: ANN401
    """Answer a question of the code's, if the answer is the same whatever the samples."""
    first, second = values_of(proxy.node)
    if not isinstance(first, torch.Tensor) or ask is len:
        answer = ask(first)
        if answer == ask(second):
            return answer
    raise fx.proxy.TraceError("its code asks for the value of what it computes")


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True

    def __init__(self, tried: Tried, whole: tuple[type, ...]) -> None:
        super().__init__()
        self._tried = tried
        self._whole = whole
        self._thread = threading.get_ident()
        self._is_evaluating = False
        self._calls: Counter[str] = Counter()
        self._scopes: list[str] = []
        self.failed: nn.Module | None = None
        """The innermost module whose code could not be gone through."""
        self.needs_numbers = False
        """Whether shapes alone did not do; the user's code may have gone on after that."""

    def trace(
        self, root: nn.Module | Callable[..., Any], concrete_args: dict[str, Any] | None = None
    ) -> fx.Graph:
        with calls_recorded(self._record_call, is_tracing=self._is_tracing):
            return super().trace(root, concrete_args)

    def _is_tracing(self) -> bool:
        return not self._is_evaluating and threading.get_ident() == self._thread

    def _record_call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401
        return self.create_proxy("call_function", function, args, kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, (*self._whole, *_SEEDED)):
            return True
        return not isinstance(m, _GONE_THROUGH) and super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401
        if self._is_evaluating or threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        try:
            label = self._numbered(self.path_of_module(m))
        except NameError:  # A module that belongs to no other, such as an activation in a table.
            return forward(*args, **kwargs)
        self._scopes.append(label)
        try:
            outputs = super().call_module(m, forward, args, kwargs)
        except Exception:
            if self.failed is None:
                self.failed = m
            raise
        finally:
            self._scopes.pop()
        last = next(reversed(self.graph.nodes))
        last.meta.setdefault(ENDS, []).append((label, type(m).__name__))
        return outputs

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:  # noqa: ANN401
        if self._is_evaluating or threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:  # noqa: ANN401
        node = super().create_node(*args, **kwargs)
        self._is_evaluating = True
        try:
            evaluate(self._tried, node)
        except NeedsNumbersError:
            self.needs_numbers = True
            raise
        finally:
            self._is_evaluating = False
        if node.op in {"call_function", "call_method"}:
            word = getattr(node.target, "__name__", str(node.target)).strip("_")
            scope = self._scopes[-1] if self._scopes else INNER
            node.meta[LABEL] = (self._numbered(f"{scope}.{word}"), word)
        return node

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Value(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:
        certain = certain_of_draw(obj.node)
        answer: bool = constant(obj, bool) if certain is None else certain
        return answer

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        items: Any = obj
        return iter([items[index] for index in range(constant(obj, len))])

    def keys(self, obj: fx.Proxy) -> Any:  # noqa: ANN401
        return constant(obj, lambda value: tuple(value.keys()))

    def _numbered(self, label: str) -> str:
        self._calls[label] += 1
        count = self._calls[label]
        return label if count == 1 else f"{label}_{count}"


def drop_unused_items(graph: fx.Graph) -> None:
    """Drop items of a tuple, and draws, that nobody uses.

    A module that gives a tuple ends with the item that is used. So what crosses after a recurrent
    layer is its steps, where its last state is not wanted.
    """
    for node in reversed(graph.nodes):
        if node.target in {*COMPARISONS, torch.rand} and not node.users and ENDS not in node.meta:
            graph.erase_node(node)  # A condition asked for it that was the same for all draws.
            continue
        if node.target is not operator.getitem or ENDS in node.meta:
            continue
        source = node.args[0]
        if not node.users:
            graph.erase_node(node)
        elif isinstance(source, fx.Node) and len(source.users) == 1 and ENDS in source.meta:
            node.meta[ENDS] = source.meta[ENDS]


def trace(
    module: nn.Module, samples: tuple[Given, ...], *, shapes: nn.Module | None
) -> tuple[nn.Module, fx.Graph]:
    """Record the module in its mode: the root that the graph's names are of, and the graph.

    `samples` are two batches of unlike size; the second has no numbers as long as `shapes`, a copy
    of the module that has none, will do. The module's buffers change. Raises TraceFailedError,
    with the reason, where even leaving parts whole does not help.
    """
    names = tuple(samples[0]) if isinstance(samples[0], dict) else ()
    root = _Root(module, names).train(module.training)
    with_numbers = tried = Tried(root, samples)
    if shapes is not None:
        tried = with_numbers.by_shapes(_Root(shapes, names).train(module.training))
    whole: tuple[type, ...] = ()
    while True:
        tracer = _Tracer(tried, whole)
        try:
            with _one_at_a_time:
                graph = tracer.trace(root)
            if not tracer.needs_numbers:
                drop_unused_items(graph)
                return root, graph
            tried = with_numbers
        except Exception as error:
            if tracer.needs_numbers:
                tried = with_numbers
                continue
            failed = tracer.failed
            if failed is None or failed is module or type(failed) in whole:
                raise TraceFailedError(_why(error, failed or module)) from error
            whole = (*whole, type(failed))


def _why(error: Exception, failed: nn.Module) -> str:
    """Say what could not be recorded, and where in the user's own code that is."""
    reason = str(error).partition("\n")[0] or type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_library(frame.filename)]
    where = (
        f" (`{own[-1].line}`, line {own[-1].lineno} of {Path(own[-1].filename).name})"
        if own
        else ""
    )
    return (
        f"{reason}{where}; put that part of {type(failed).__name__} in a module of its own, "
        "which then stays whole, and a cut can be before and after it"
    )


def _is_library(filename: str) -> bool:
    """Whether code is torch's, Python's or ours."""
    return filename.startswith("<") or any(filename.startswith(root) for root in _LIBRARIES)
