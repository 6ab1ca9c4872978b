"""The parts of a graph between places to cut, each as a function of what crosses."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import fx, nn

from runtime.models.graph.draws import drawn_path
from runtime.models.graph.flow import Flow
from runtime.models.graph.places import Place
from runtime.models.graph.rows import Row
from runtime.models.graph.tracer import INNER
from runtime.models.graph.values import DRAWS, rebuild, values_of
from runtime.models.sequence import Shape

Run = Callable[..., tuple[Any, ...]]
"""A part of the graph: from the tree that holds its state, and what crosses, to what it gives."""


@dataclass(frozen=True)
class Part:
    """One step as one of the two modes has it."""

    run: Run
    attributes: tuple[str, ...]
    overwrites: bool
    """Whether it overwrites what it is given."""
    code: str
    given: Row
    """How what it takes arrives from another side."""
    gives: Row
    """How what it gives leaves to another side."""


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
    train: Part
    evaluate: Part
    shape: Shape
    """Of what it gives for one sample."""
    dtype: torch.dtype

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def write_parts(flow: Flow, given: Row, places: Sequence[Place], *, training: bool) -> list[Part]:
    """Write the part of the graph up to each place from the one before it; `given` is the input."""
    start = Start(0, (flow.nodes[0],), given)
    parts = []
    for place in places:
        parts.append(_write(flow, start, place, training=training))
        start = Start(place.index, place.crossing, place.row)
    return parts


@dataclass(frozen=True)
class Start:
    """Where a part begins: the last node before it, and what has crossed."""

    index: int
    crossing: tuple[fx.Node, ...]
    row: Row


def _write(flow: Flow, start: Start, end: Place, *, training: bool) -> Part:
    writer = _Writer(flow, start)
    for node in flow.nodes[start.index + 1 : end.index + 1]:
        writer.add(node, is_seeded=training)
    writer.graph.output(tuple(writer.copies[node] for node in end.crossing))
    module = fx.GraphModule(_Shell(), writer.graph)
    return Part(
        run=type(module).forward,
        attributes=tuple(writer.attributes),
        overwrites=flow.are_overwritten_after(start.index, start.crossing),
        code=module.code,
        given=start.row,
        gives=end.row,
    )


class _Writer:
    """Copies nodes of a flow into a graph of their own."""

    def __init__(self, flow: Flow, start: Start) -> None:
        self.graph = fx.Graph()
        self.attributes: dict[str, None] = {}
        self._flow = flow
        self._row = start.row
        self.copies: dict[fx.Node, fx.Node] = {
            node: self.graph.placeholder(f"x{index}") for index, node in enumerate(start.crossing)
        }
        self._given = next(iter(self.copies.values()))

    def add(self, node: fx.Node, *, is_seeded: bool) -> None:
        """Copy a node that follows the samples, with all that it needs beside them."""
        if is_seeded and node.meta.get(DRAWS):
            self._call(drawn_path(node), ())
        self._copy(node)

    def _copy(self, node: fx.Node) -> fx.Node:
        args, kwargs = self._mapped(node.args), self._mapped(node.kwargs)
        if node.op in {"get_attr", "call_module"}:
            target = str(node.target).removeprefix(f"{INNER}.")
            self.attributes[target] = None
            copied = self.graph.create_node(node.op, target, args, kwargs)
        else:
            args, kwargs = _without_processor(node.target, args, kwargs)
            copied = self.graph.create_node(node.op, node.target, args, kwargs)
        self.copies[node] = copied
        return copied

    def _call(self, path: str, args: tuple[Any, ...]) -> fx.Node:
        self.attributes[path] = None
        return self.graph.call_module(path, args)

    def _mapped(self, arguments: Any) -> Any:  # noqa: ANN401 - whatever a graph holds
        return fx.map_arg(arguments, self._value)

    def _value(self, node: fx.Node) -> Any:  # noqa: ANN401
        if node in self.copies:
            return self.copies[node]
        if node in self._flow.known:
            return rebuild(values_of(node), self._batch_multiple)
        assert node not in self._flow.position, f"{node} is of another step"
        return self._copy(node)

    def _batch_multiple(self, multiple: int) -> fx.Node:
        given = self._given
        if self._row.names:
            given = self.graph.call_function(operator.getitem, (given, self._row.names[0]))
        size = self.graph.call_method("size", (given, self._row.entries[0].batch_axis))
        return size if multiple == 1 else self.graph.call_function(operator.mul, (size, multiple))


def _without_processor(
    target: object, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Leave out that new tensors are the processor's: a step may run where an accelerator is.

    It was recorded on the processor, and so there its code asked for nothing else.
    """
    kwargs = {key: each for key, each in kwargs.items() if not _is_processor(key, each)}
    if target == "to" and len(args) > 1 and _is_processor("device", args[1]):
        args = (args[0], *args[2:])
    return args, kwargs


def _is_processor(key: str, value: object) -> bool:
    return key == "device" and value in {"cpu", torch.device("cpu")}


class _Shell(nn.Module):
    """Answers for whatever a graph refers to, since only the function of it is wanted."""

    def __getattr__(self, name: str) -> torch.Tensor | nn.Module:
        return super().__getattr__(name) if name.startswith("__") else _Shell()
