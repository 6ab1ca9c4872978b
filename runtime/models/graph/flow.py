"""How values flow through a captured graph, and where one tensor crosses.

Three kinds of nodes: what is known to either side (sizes, constants), what is made of the
network's state alone and can be made again on either side, and the rest, which follows the
samples. Between two of the rest a cut is possible; what crosses it is whatever was computed
before it and is used after it. Where that is one tensor, rows of samples in float32, it is a
place to cut.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from runtime.models.graph.tracer import ENDS, INNER, LABEL
from runtime.models.graph.values import (
    BATCHES,
    DRAWS,
    MUTATED,
    is_rebuildable,
    storage_of,
    values_of,
)


@dataclass(frozen=True)
class Place:
    """A cut after the node at `index` of the flow, named after what ends there."""

    index: int
    name: str
    also: tuple[str, ...]
    """Other names of the same place: what is inside the outermost that ends there."""
    kind: str
    ends_module: bool


@dataclass(frozen=True)
class Flow:
    """A graph whose nodes have been tried out."""

    root: nn.Module
    graph: fx.Graph

    @cached_property
    def known(self) -> set[fx.Node]:
        """Nodes whose values need not be computed."""
        return {node for node in self._computed if is_rebuildable(values_of(node))}

    @cached_property
    def nodes(self) -> list[fx.Node]:
        """Nodes that follow the samples, and what must keep its turn among them, in order."""
        overwritten = {at for node in self.graph.nodes for at in node.meta.get(MUTATED, ())}
        found: dict[fx.Node, None] = {}
        for node in self._computed:
            if node in self.known or node.op == "get_attr":
                continue
            follows = node.op == "placeholder" or any(each in found for each in self.sources(node))
            own = {storage_of(tensor) for tensor in _tensors(node)}
            if follows or node.meta.get(DRAWS) or node.meta.get(MUTATED) or own & overwritten:
                found[node] = None
        return list(found)

    @cached_property
    def position(self) -> dict[fx.Node, int]:
        """Index of each of `nodes`."""
        return {node: index for index, node in enumerate(self.nodes)}

    @cached_property
    def output(self) -> fx.Node:
        """The node that gives what the network gives."""
        result = next(reversed(self.graph.nodes)).args[0]
        assert isinstance(result, fx.Node)
        return result

    def sources(self, node: fx.Node) -> list[fx.Node]:
        """What a node is computed from, without what is known."""
        return [each for each in node.all_input_nodes if each not in self.known]

    @cached_property
    def state_of(self) -> list[dict[str, bool]]:
        """Names of what each of `nodes` uses of the network's state, [node].

        True where a cut must not part two uses: weights, and buffers that change.
        """
        return [self._state_of(node) for node in self.nodes]

    def _state_of(self, node: fx.Node) -> dict[str, bool]:
        if node.op == "call_module":
            module = self.root.get_submodule(str(node.target))
            return {f"{node.target}.{name}": True for name in module.state_dict()}
        found: dict[str, bool] = {}
        waiting = self.sources(node)
        while waiting:
            source = waiting.pop()
            if source.op == "get_attr":
                value = values_of(source)[0]
                is_weight = isinstance(value, nn.Parameter)
                found[str(source.target)] = is_weight or storage_of(value) in node.meta[MUTATED]
            elif source not in self.position:
                waiting.extend(self.sources(source))
        return found

    @cached_property
    def tied(self) -> list[str | None]:
        """A weight that is used on both sides of a cut after each of `nodes`, [node]."""
        uses: defaultdict[int, list[int]] = defaultdict(list)
        names: dict[int, str] = {}
        state = self.root.state_dict(keep_vars=True)
        for index, used in enumerate(self.state_of):
            for name in (name for name, is_own in used.items() if is_own):
                uses[id(state[name])].append(index)
                names.setdefault(id(state[name]), name.removeprefix(f"{INNER}."))
        found: list[str | None] = [None] * len(self.nodes)
        for tensor, indices in uses.items():
            found[indices[0] : indices[-1]] = [names[tensor]] * (indices[-1] - indices[0])
        return found

    @cached_property
    def places(self) -> list[Place]:
        """Where one tensor crosses, in order; the last is the network's end."""
        return [self._place(index) for index in self._reasons if self._reasons[index] is None]

    @cached_property
    def refused(self) -> dict[str, str]:
        """Names of where no cut can be, and why."""
        return {
            name: reason
            for index, reason in self._reasons.items()
            if reason is not None
            for name in (self._place(index).name, *self._place(index).also)
        }

    @cached_property
    def _reasons(self) -> dict[int, str | None]:
        """Why no cut can be after a node, by its index; None where one can."""
        last_use = {node: self._last_use(node) for node in self.nodes}
        found: dict[int, str | None] = {}
        alive: set[fx.Node] = set()
        for index, node in enumerate(self.nodes):
            alive = {each for each in (*alive, node) if last_use[each] > index}
            if index == len(self.nodes) - 1:
                found[index] = None
            elif index:
                found[index] = self._reason(index, alive)
        return found

    def _reason(self, index: int, alive: set[fx.Node]) -> str | None:
        if len(alive) != 1:
            return f"{len(alive)} values would have to cross, and one can"
        if alive != {self.nodes[index]}:
            return "what would cross is of an earlier place"
        if self.tied[index] is not None:
            return f"parameter {self.tied[index]} is used before and after it"
        return _why_it_does_not_travel(values_of(self.nodes[index]))

    def is_overwritten_after(self, index: int) -> bool:
        """Whether later nodes overwrite what crosses after the node at `index`."""
        own = {storage_of(tensor) for tensor in _tensors(self.nodes[index])}
        return any(own & node.meta.get(MUTATED, set()) for node in self.nodes[index + 1 :])

    def _last_use(self, node: fx.Node) -> int:
        users = [self.position[user] for user in node.users if user in self.position]
        return max([*users, len(self.nodes) if node is self.output else -1])

    @cached_property
    def _computed(self) -> list[fx.Node]:
        return [node for node in self.graph.nodes if node.op != "output"]

    @cached_property
    def _ends(self) -> list[list[tuple[str, str]]]:
        """Modules that end at each of `nodes`, innermost first: name and class, [node]."""
        ends: list[list[tuple[str, str]]] = [[] for _ in self.nodes]
        index = 0
        for node in self._computed:
            index = self.position.get(node, index)
            ends[index] += node.meta.get(ENDS, [])
        return ends

    def _place(self, index: int) -> Place:
        modules = [(_own_name(label), kind) for label, kind in self._ends[index] if label != INNER]
        label, kind = self.nodes[index].meta.get(LABEL, (None, ""))
        names = [*([(_own_name(label), kind)] if label else []), *modules] or [("output", "")]
        name, kind = names[-1]
        also = tuple(other for other, _ in names[:-1])
        return Place(index, name, also, kind, ends_module=bool(modules))


def _own_name(label: str) -> str:
    return label.removeprefix(f"{INNER}.")


def _why_it_does_not_travel(values: tuple[Any, ...]) -> str | None:
    for value, batch in zip(values, BATCHES, strict=True):
        if not isinstance(value, torch.Tensor):
            return f"what it gives is a {type(value).__name__}, not one tensor"
        if value.dtype != torch.float32:
            return f"what it gives is {str(value.dtype).removeprefix('torch.')}, not float32"
        if value.shape[:1] != (batch,):
            return "the first axis of what it gives is not that of the samples"
        if not value.is_contiguous():
            return "what it gives is a view that would arrive in another order in memory"
    return None


def _tensors(node: fx.Node) -> Iterable[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values_of(node)) if isinstance(leaf, torch.Tensor)]
