"""Where a captured graph can be cut: wherever what crosses can travel.

A place that one tensor crosses is offered after any node. Where several cross, it is offered at
the ends of modules, and only along a stretch of the graph that has no place for one: a U-Net
between its first skip and its end, a transformer whose mask goes along. Short stretches, inside a
residual block say, have both their ends to be cut at, which are cheaper.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import fx

from runtime.models.graph.flow import Flow
from runtime.models.graph.rows import DoesNotTravelError, Entry, Row, entry_of
from runtime.models.graph.tracer import INNER, LABEL
from runtime.models.graph.values import values_of

MOST_TENSORS = 8
"""That may cross at one place."""
LONG_STRETCH = 0.2
"""Share of the nodes from which on a stretch without a place gets places for several tensors."""
LONG_NODES = 12
"""The fewest nodes of such a stretch: a residual block has less."""


AS_IT_IS = Row((Entry(()),))
"""How the network's outputs leave: they go to a loss, and to no other side."""


@dataclass(frozen=True)
class Place:
    """A cut after the node at `index` of the flow, named after what ends there."""

    index: int
    name: str
    also: tuple[str, ...]
    """Other names of the same place: what is inside the outermost that ends there."""
    kind: str
    ends_module: bool
    crossing: tuple[fx.Node, ...]
    row: Row
    """How what crosses travels."""


@dataclass(frozen=True)
class Places:
    """The places of a flow."""

    flow: Flow

    @cached_property
    def offered(self) -> list[Place]:
        """All there are, in order; the last is the network's end."""
        indices = sorted(index for index, row in self._rows.items() if isinstance(row, Row))
        return [self._place(index) for index in indices]

    @cached_property
    def refused(self) -> dict[str, str]:
        """Names of where no cut can be, and why."""
        return {
            name: reason
            for index, reason in self._rows.items()
            if isinstance(reason, str)
            for name in self._names(index)
        }

    @cached_property
    def _rows(self) -> dict[int, Row | str]:
        """How what crosses after a node travels, or why no cut can be there, by its index."""
        last = len(self.flow.nodes) - 1
        found = {index: self._row(index) for index in range(1, last)}
        long = self._in_long_stretches(found)
        for index, row in found.items():
            if isinstance(row, Row) and len(row.entries) > 1 and index not in long:
                found[index] = f"{len(row.entries)} tensors would have to cross"
        return {**found, last: AS_IT_IS}

    def _row(self, index: int) -> Row | str:
        crossing = self.flow.alive[index]
        if self.flow.nodes[index] not in crossing:
            return "what would cross is of an earlier place"
        if len(crossing) > MOST_TENSORS:
            return f"{len(crossing)} tensors would have to cross, and {MOST_TENSORS} can"
        if self.flow.tied[index] is not None:
            return f"parameter {self.flow.tied[index]} is used before and after it"
        try:
            row = Row(tuple(entry_of(values_of(node)) for node in crossing))
        except DoesNotTravelError as error:
            return str(error)
        dtypes = [entry.dtype for entry in row.entries]
        if torch.float32 in dtypes:
            return row
        return f"what it gives is {str(dtypes[0]).removeprefix('torch.')}, not float32"

    def _in_long_stretches(self, rows: dict[int, Row | str]) -> set[int]:
        """Where several tensors may cross: ends of modules, none within another, [index]."""
        num_nodes = len(self.flow.nodes)
        single = [i for i, row in rows.items() if isinstance(row, Row) and len(row.entries) == 1]
        found: set[int] = set()
        for start, stop in zip([0, *single], [*single, num_nodes - 1], strict=True):
            if stop - start > max(LONG_STRETCH * num_nodes, LONG_NODES):
                found |= self._outermost(start, stop)
        return found

    def _outermost(self, start: int, stop: int) -> set[int]:
        """Ends of modules between two nodes, without those inside a short one that ends there."""
        ends = {
            label: index
            for index in range(start + 1, stop)
            for label, _ in self.flow.ends[index]
            if label != INNER
        }
        first: dict[str, int] = {}
        for label, index in ends.items():
            for outer in _outer(label):
                first.setdefault(outer, index)
        most = LONG_STRETCH * len(self.flow.nodes)
        short = {label for label, index in ends.items() if index - first.get(label, index) < most}
        return {index for label, index in ends.items() if short.isdisjoint(_outer(label))}

    def _names(self, index: int) -> tuple[str, ...]:
        place = self._named(index)
        return (place[0], *place[1])

    def _named(self, index: int) -> tuple[str, tuple[str, ...], str, bool]:
        ends = self.flow.ends[index]
        modules = [(_own_name(label), kind) for label, kind in ends if label != INNER]
        label, kind = self.flow.nodes[index].meta.get(LABEL, (None, ""))
        names = [*([(_own_name(label), kind)] if label else []), *modules] or [("output", "")]
        name, kind = names[-1]
        return name, tuple(other for other, _ in names[:-1]), kind, bool(modules)

    def _place(self, index: int) -> Place:
        name, also, kind, ends_module = self._named(index)
        is_end = index == len(self.flow.nodes) - 1
        crossing = (self.flow.output,) if is_end else self.flow.alive[index]
        row = self._rows[index]
        assert isinstance(row, Row)
        return Place(index, name, also, kind, ends_module, crossing, row)


def _outer(label: str) -> list[str]:
    """Names of the modules that one is inside of."""
    parts = label.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _own_name(label: str) -> str:
    return label.removeprefix(f"{INNER}.")
