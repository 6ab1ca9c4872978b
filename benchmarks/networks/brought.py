"""What is known of a network that somebody brings."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
BATCH = 2
"""Samples of the step that is tried."""


@dataclass(frozen=True)
class Brought:
    """A network of somebody else's, and the shape of its samples.

    `inputs` are the shapes by name where it takes several; token ids are below `vocabulary`.
    """

    name: str
    library: str
    build: Callable[[], nn.Module]
    inputs: Shape | dict[str, Shape]
    vocabulary: int | None = None

    def samples(self) -> Tensor | dict[str, Tensor]:
        """A random batch, the same every time."""
        generator = torch.Generator().manual_seed(1)
        if not isinstance(self.inputs, dict):
            return self._one("x", self.inputs, generator)
        return {name: self._one(name, shape, generator) for name, shape in self.inputs.items()}

    def _one(self, name: str, shape: Shape, generator: torch.Generator) -> Tensor:
        if name == "attention_mask":
            mask = torch.ones(BATCH, *shape, dtype=torch.long)
            mask[1, shape[0] // 2 :] = 0
            return mask
        if self.vocabulary is not None:
            return torch.randint(0, self.vocabulary, (BATCH, *shape), generator=generator)
        return torch.randn(BATCH, *shape, generator=generator)
