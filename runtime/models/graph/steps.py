"""The parts of a graph between places to cut, each as a function of what crosses."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import fx, nn

from runtime.models.graph.draws import drawn_path
from runtime.models.graph.flow import Flow, Place
from runtime.models.graph.tracer import INNER
from runtime.models.graph.values import DRAWS, rebuild, values_of

Run = Callable[[nn.Module, torch.Tensor], torch.Tensor]
"""A part of the graph: from the tree that holds its state, and what crosses, to what it gives."""


@dataclass(frozen=True)
class Step:
    """A layer of a network that has been captured."""

    name: str
    also: tuple[str, ...]
    kind: str
    ends_module: bool
    attributes: tuple[str, ...]
    """Modules, parameters and buffers that it uses, by their names in the user's module."""
    borrowed: frozenset[str]
    """Those among them that are an earlier step's to keep."""
    train: Run
    evaluate: Run
    overwrites: bool
    """Whether it overwrites what it is given."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


@dataclass(frozen=True)
class Part:
    """One step as one of the two modes has it."""

    run: Run
    attributes: tuple[str, ...]
    overwrites: bool
    code: str


def write_parts(flow: Flow, places: Sequence[Place], *, training: bool) -> list[Part]:
    """Write the part of the graph up to each place from the one before it."""
    starts = [0, *(place.index for place in places[:-1])]
    return [
        _write(flow, start, place.index, training=training)
        for start, place in zip(starts, places, strict=True)
    ]


def _write(flow: Flow, start: int, end: int, *, training: bool) -> Part:
    writer = _Writer(flow, flow.nodes[start], end)
    for node in flow.nodes[start + 1 : end + 1]:
        writer.add(node, is_seeded=training)
    is_last = end == len(flow.nodes) - 1
    writer.graph.output(writer.copies[flow.output if is_last else flow.nodes[end]])
    module = fx.GraphModule(_Shell(), writer.graph)
    return Part(
        run=type(module).forward,
        attributes=tuple(writer.attributes),
        overwrites=flow.is_overwritten_after(start),
        code=module.code,
    )


class _Writer:
    """Copies nodes of a flow into a graph of their own."""

    def __init__(self, flow: Flow, crossing: fx.Node, end: int) -> None:
        self.graph = fx.Graph()
        self.attributes: dict[str, None] = {}
        self._flow = flow
        self._end = end
        self._input = self.graph.placeholder("x")
        self.copies: dict[fx.Node, fx.Node] = {crossing: self._input}

    def add(self, node: fx.Node, *, is_seeded: bool) -> None:
        """Copy a node that follows the samples, with all that it needs beside them."""
        if is_seeded and node.meta.get(DRAWS):
            self._call(drawn_path(node), ())
        self._copy(node)

    def _copy(self, node: fx.Node) -> fx.Node:
        args, kwargs = self._given(node.args), self._given(node.kwargs)
        if node.op in {"get_attr", "call_module"}:
            target = str(node.target).removeprefix(f"{INNER}.")
            self.attributes[target] = None
            copied = self.graph.create_node(node.op, target, args, kwargs)
        else:
            copied = self.graph.create_node(node.op, node.target, args, kwargs)
        self.copies[node] = copied
        return copied

    def _call(self, path: str, args: tuple[Any, ...]) -> fx.Node:
        self.attributes[path] = None
        return self.graph.call_module(path, args)

    def _given(self, arguments: Any) -> Any:  # noqa: ANN401 - whatever a graph holds
        return fx.map_arg(arguments, self._value)

    def _value(self, node: fx.Node) -> Any:  # noqa: ANN401
        if node in self.copies:
            return self.copies[node]
        if node in self._flow.known:
            return rebuild(values_of(node), self._batch_multiple)
        assert node not in self._flow.position, f"{node} is of another step"
        return self._copy(node)

    def _batch_multiple(self, multiple: int) -> fx.Node:
        size = self.graph.call_method("size", (self._input, 0))
        return size if multiple == 1 else self.graph.call_function(operator.mul, (size, multiple))


class _Shell(nn.Module):
    """Answers for whatever a graph refers to, since only the function of it is wanted."""

    def __getattr__(self, name: str) -> torch.Tensor | nn.Module:
        return super().__getattr__(name) if name.startswith("__") else _Shell()
