"""One side of a cut network: layers, and the optimiser state that belongs to them."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from runtime.models.optimizer import Slots, step
from runtime.wire.commands import Clip, OptimizerSpec
from runtime.wire.frames import Tensor, TensorSpec, specs_of

OptimizerState = defaultdict[nn.Parameter, Slots]
"""What each parameter's optimiser keeps."""


def empty_state() -> OptimizerState:
    """State before the first step."""
    return defaultdict(dict)


class Side:
    """Layers that train together.

    A parameter that does not learn (`requires_grad` is False) is frozen: it has no gradient and no
    slots, and is none of `tensors`.

    Several sides may share one `state`: it belongs to the parameters, not to the side, and so
    survives a change of the cut. With `carry_state` the slots travel with the weights; without,
    they are forgotten whenever weights are loaded.
    """

    def __init__(
        self,
        layers: nn.Sequential,
        optimizer: OptimizerSpec,
        *,
        carry_state: bool,
        state: OptimizerState,
    ) -> None:
        self.layers = layers
        self._spec = optimizer
        self._carry_state = carry_state
        self._state = state
        learning = {n: p for n, p in layers.named_parameters() if p.requires_grad}
        self._trainable = list(learning.values())
        self._learning_names = list(learning)
        self._groups: defaultdict[OptimizerSpec, list[nn.Parameter]] = defaultdict(list)
        for name, parameter in learning.items():
            self._groups[optimizer.of_parameter(name, parameter.dim())].append(parameter)
        self._frozen = frozenset(_frozen(layers))
        for parameter in self._trainable:
            if state[parameter].keys() != set(optimizer.slots):
                state[parameter].clear()  # Left by another kind of optimiser.

    def step(self, learning_rate: float, clip: Clip | None = None) -> None:
        """Update the parameters from their gradients, and forget the gradients."""
        if clip is not None:
            self._clip(clip)
        for spec, parameters in self._groups.items():
            step({p: self._state[p] for p in parameters}, spec, learning_rate=learning_rate)
        self.forget_gradients()

    def _clip(self, clip: Clip) -> None:
        together = [self._trainable] if clip.each == "side" else [[p] for p in self._trainable]
        for parameters in together:
            clip_grad_norm_(parameters, clip.norm)

    def forget_gradients(self) -> None:
        """Begin a step anew."""
        for parameter in self._trainable:
            parameter.grad = None

    @property
    def trainable(self) -> Sequence[nn.Parameter]:
        """Parameters that learn, in order."""
        return self._trainable

    def tensors(self) -> list[Tensor]:
        """Copies of what may change: parameters and buffers in `state_dict` order, then slots.

        Slots are those that are carried.
        """
        values = list(self._own().values())
        if self._carry_state:
            values += [self._slot(p, slot) for p in self._trainable for slot in self._spec.slots]
        return [np.array(value.detach().numpy()) for value in values]

    def specs(self) -> tuple[TensorSpec, ...]:
        """Shapes of `tensors`."""
        return specs_of(self.tensors())

    def parts(self) -> list[str]:
        """Say what each of `tensors` is: a parameter, or which buffer or slot by its own name."""
        parameters = dict(self.layers.named_parameters(remove_duplicate=False))
        state = [
            "parameter" if name in parameters else name.rpartition(".")[2] for name in self._own()
        ]
        slots = self._spec.slots if self._carry_state else ()
        return state + [slot for _ in self._trainable for slot in slots]

    def names(self) -> list[str]:
        """Name each of `tensors`: a part of these layers has the same names for its own."""
        slots = self._spec.slots if self._carry_state else ()
        return [
            *self._own(),
            *(f"{name}/{slot}" for name in self._learning_names for slot in slots),
        ]

    def slots(self) -> dict[str, Slots]:
        """What the optimiser keeps by the name of the parameter that learns; lent, not copied."""
        names = zip(self._learning_names, self._trainable, strict=True)
        return {name: self._state[parameter] for name, parameter in names}

    def load(self, tensors: Sequence[Tensor]) -> None:
        """Take over what another side's `tensors` gave."""
        loaded = [torch.from_numpy(np.array(tensor)) for tensor in tensors]
        own = list(self._own().values())
        with torch.no_grad():
            for target, source in zip(own, loaded[: len(own)], strict=True):
                target.copy_(source)
        slots = iter(loaded[len(own) :])
        for parameter in self._trainable:
            self._state[parameter].clear()
            if self._carry_state:
                self._state[parameter].update({slot: next(slots) for slot in self._spec.slots})

    def frozen(self) -> list[Tensor]:
        """Parameters that do not learn, in `state_dict` order; lent, not copied."""
        return frozen_of(self.layers)

    def load_frozen(self, tensors: Sequence[Tensor]) -> None:
        """Take over what another side's `frozen` gave."""
        with torch.no_grad():
            for target, source in zip(_frozen(self.layers).values(), tensors, strict=True):
                target.copy_(torch.from_numpy(np.array(source)))

    def _own(self) -> dict[str, torch.Tensor]:
        state = self.layers.state_dict()
        return {name: tensor for name, tensor in state.items() if name not in self._frozen}

    def _slot(self, parameter: nn.Parameter, slot: str) -> torch.Tensor:
        like = torch.zeros(()) if slot == "step" else torch.zeros_like(parameter)
        return self._state[parameter].get(slot, like)


def frozen_of(layers: nn.Module) -> list[Tensor]:
    """Parameters of some layers that do not learn, in `state_dict` order; lent, not copied."""
    return [parameter.detach().numpy() for parameter in _frozen(layers).values()]


def _frozen(layers: nn.Module) -> dict[str, nn.Parameter]:
    state = layers.state_dict(keep_vars=True)
    parameters = {name: own for name, own in state.items() if isinstance(own, nn.Parameter)}
    return {name: own for name, own in parameters.items() if not own.requires_grad}
