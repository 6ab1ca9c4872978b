"""The server side's layers, and what runs them: torch's compiler where it can, several ranks."""

import logging
from collections.abc import Callable

import torch
from torch import nn

from edge_coordinator.training.computing.shared_layers import SharedLayers
from runtime.models.seeded import keep_draws_uncompiled
from runtime.models.side import OptimizerState, Side
from runtime.wire.commands import Clip, OptimizerSpec

log = logging.getLogger(__name__)

Compiler = Callable[[nn.Module], Callable[..., torch.Tensor]]


class Compiled:
    """Runs layers as torch compiles them; as they are from the first time on that it cannot."""

    def __init__(self, layers: nn.Module, by: Compiler = torch.compile) -> None:
        keep_draws_uncompiled()
        self._layers = layers
        self._run: Callable[..., torch.Tensor] | None = by(layers)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Forward in the mode that the layers are in."""
        if self._run is None:
            return self._as_they_are(inputs)
        try:
            return self._run(inputs)
        except Exception as error:  # A compiler's own are many.
            outputs = self._as_they_are(inputs)  # If this fails as well, it is not the compiler's.
            self._run = None
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            log.warning(
                "training.compile: torch cannot compile the server side, so it runs as it is: %s",
                reason,
            )
            return outputs

    def _as_they_are(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self._layers(inputs)
        return outputs


class ServerSide(Side):
    """The layers above the cut, which learn here; between turns their state stays."""

    def __init__(
        self,
        layers: nn.Sequential,
        optimizer: OptimizerSpec,
        *,
        state: OptimizerState,
        compiled: Compiled | None,
        shared: SharedLayers | None = None,
    ) -> None:
        """`compiled` or `shared` is what runs the layers, if not they themselves."""
        super().__init__(layers, optimizer, carry_state=True, state=state)
        self.compiled = compiled
        self.shared = shared

    def step(self, learning_rate: float, clip: Clip | None = None) -> None:
        """Update the parameters, in all ranks that have their gradients."""
        super().step(learning_rate, clip)
        if self.shared is not None:
            self.shared.updated(self, learning_rate, clip)
