"""A captured graph as a network of layers, its state under the names that the user gave it."""

import operator
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from runtime.errors import SettingsError
from runtime.models.graph.steps import Step
from runtime.models.sequence import LayerDict, Network, Shape


class GraphNetwork(Network):
    """Steps that run in order. Its modules are the user's own tree, as far as its steps use it.

    A part of it shares modules, parameters and buffers with the whole.
    """

    draws_by_address = True

    def __init__(
        self,
        steps: Sequence[Step],
        state: Mapping[str, object],
        *,
        name: str,
        input_shape: Shape | None,
        uncut: Mapping[str, str] | None = None,
        constants: frozenset[str] = frozenset(),
    ) -> None:
        """`state` has the attributes of the steps; `uncut` says why, by the names of places."""
        super().__init__(OrderedDict(), name=name, input_shape=input_shape)
        self._steps = tuple(steps)
        self._uncut = dict(uncut or {})
        self.constants = constants
        tree = _Tree()
        borrowed = {path for step in steps for path in step.borrowed}
        kept = {path for step in steps for path in step.attributes if path not in step.borrowed}
        for path, value in state.items():
            tree.graft(path, value, is_kept=path in kept or path not in borrowed)
        # The same objects, so that whoever replaces a tensor or a module here replaces it there.
        shared = ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set")
        vars(self).update({key: vars(tree)[key] for key in shared})
        self._trees = (tree,)
        """In a tuple, since it is not one more module of this one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the steps in the mode that this network is in."""
        parts = [step.train if self.training else step.evaluate for step in self._steps]
        if not parts:
            return x
        values = parts[0].given.unpack(x)
        if parts[0].overwrites:  # It is the caller's; between steps nobody else has it.
            values = tree_map_only(torch.Tensor, torch.clone, values)
        for part in parts:
            values = part.run(self._trees[0], *values)
        return parts[-1].gives.pack(values)

    def layers(self) -> LayerDict:
        """Each step as a network of its own."""
        return OrderedDict(
            (step.name, self.part(index, index + 1)) for index, step in enumerate(self._steps)
        )

    def part(self, start: int, stop: int) -> Self:
        """Some of the steps, with what they use."""
        steps = self._steps[start:stop]
        state = {
            path: operator.attrgetter(path)(self._trees[0])
            for step in steps
            for path in step.attributes
        }
        shape = self.input_shape if start == 0 else None
        part = type(self)(steps, state, name=self.name, input_shape=shape)
        part.training = self.training
        return part

    def resolve(self, cut: str) -> str:
        """Give the layer that a name means: itself, or what ends together with it.

        Raises SettingsError for a place where no cut can be, saying why.
        """
        for step in self._steps:
            if cut in step.also:
                return step.name
        if cut in self._uncut:
            raise SettingsError(f"no cut can be after {cut} of {self.name}: {self._uncut[cut]}")
        return cut

    def types_into(self, index: int) -> list[str]:
        """Name the types beside float32 of the tensors that enter a step."""
        types = {each.dtype for each in self._steps[index].train.given.entries} - {torch.float32}
        return sorted(str(each).removeprefix("torch.") for each in types)

    @property
    def outputs(self) -> list[tuple[Shape, torch.dtype]]:
        """Shape of what each layer gives for one sample, and its type, [layer]."""
        return [(step.shape, step.dtype) for step in self._steps]

    @property
    def kind(self) -> str:
        """What the last step ends with, as its class or function is named."""
        return self._steps[-1].kind

    def __len__(self) -> int:
        return len(self._steps)


def whole_numbers_into(network: Network, index: int) -> str:
    """Name the types of what enters a layer beside float32; empty if that is all."""
    if not isinstance(network, GraphNetwork):
        return ""
    return " and ".join(network.types_into(index))


class _Tree(nn.Module):
    """Empty modules in which those of the user hang under their own names."""

    def graft(self, path: str, value: object, *, is_kept: bool) -> None:
        """Put a module, a parameter or a tensor at its place."""
        *above, leaf = path.split(".")
        at: nn.Module = self
        for name in above:
            at = at._modules.setdefault(name, _Tree())  # type: ignore[assignment]  # noqa: SLF001
        if isinstance(value, nn.Module):
            at._modules[leaf] = value  # noqa: SLF001
        elif isinstance(value, nn.Parameter):
            at._parameters[leaf] = value  # noqa: SLF001
        else:
            assert isinstance(value, torch.Tensor)
            at.register_buffer(leaf, value, persistent=is_kept)
