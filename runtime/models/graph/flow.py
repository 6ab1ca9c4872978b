"""How values flow through a captured graph, and what crosses from one node to the next.

Three kinds of nodes: what is known to either side (sizes, constants), what is made of the
network's state alone and can be made again on either side, and the rest, which follows the
samples. Between two of the rest a cut is possible; what crosses it is whatever was computed
before it and is used after it. `places` says where that can travel.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

from torch import fx, nn

from runtime.models.graph.tracer import ENDS, INNER
from runtime.models.graph.values import (
    DRAWS,
    MUTATED,
    is_rebuildable,
    storage_of,
    tensors_of,
    values_of,
)


@dataclass(frozen=True)
class Flow:
    """A graph whose nodes have been tried out."""

    root: nn.Module
    graph: fx.Graph

    @cached_property
    def known(self) -> set[fx.Node]:
        """Nodes whose values need not be computed."""
        return {
            node
            for node in self._computed
            if is_rebuildable(values_of(node)) and not node.meta.get(MUTATED)
        }

    @cached_property
    def nodes(self) -> list[fx.Node]:
        """Nodes that follow the samples, and what must keep its turn among them, in order."""
        overwritten = {at for node in self.graph.nodes for at in node.meta.get(MUTATED, ())}
        found: dict[fx.Node, None] = {}
        for node in self._computed:
            if node in self.known or node.op == "get_attr":
                continue
            follows = node.op == "placeholder" or any(each in found for each in self.sources(node))
            own = {storage_of(tensor) for tensor in tensors_of(node)}
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
    def alive(self) -> list[tuple[fx.Node, ...]]:
        """What was computed up to each of `nodes` and is used after it, in order, [node]."""
        last_use = [self._last_use(node) for node in self.nodes]
        found: list[tuple[fx.Node, ...]] = []
        alive: list[int] = []
        for index in range(len(self.nodes)):
            alive = [each for each in (*alive, index) if last_use[each] > index]
            found.append(tuple(self.nodes[each] for each in alive))
        return found

    def are_overwritten_after(self, index: int, nodes: tuple[fx.Node, ...]) -> bool:
        """Whether nodes after the one at `index` overwrite what these gave."""
        own = {storage_of(tensor) for node in nodes for tensor in tensors_of(node)}
        return any(own & node.meta.get(MUTATED, set()) for node in self.nodes[index + 1 :])

    @cached_property
    def ends(self) -> list[list[tuple[str, str]]]:
        """Modules that end at each of `nodes`, innermost first: name and class, [node]."""
        ends: list[list[tuple[str, str]]] = [[] for _ in self.nodes]
        index = 0
        for node in self._computed:
            index = self.position.get(node, index)
            ends[index] += node.meta.get(ENDS, [])
        return ends

    def _last_use(self, node: fx.Node) -> int:
        users = [self.position[user] for user in node.users if user in self.position]
        return max([*users, len(self.nodes) if node is self.output else -1])

    @cached_property
    def _computed(self) -> list[fx.Node]:
        return [node for node in self.graph.nodes if node.op != "output"]
