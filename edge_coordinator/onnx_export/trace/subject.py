"""What is traced: the device side as a function of its state, dropout masks and samples."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from edge_coordinator.onnx_export.trace.recurrent import unroll_recurrent
from runtime.models.dropout import dropout_layers, seed_dropout
from runtime.models.graph.network import GraphNetwork
from runtime.models.seeded import SeededDropout
from runtime.wire.device_graphs import MaskSpec

Tensors = list[Tensor]


class DropoutInputs:
    """The dropout layers of a module, which from now on use the masks that they are given."""

    def __init__(self, module: nn.Module, num_samples: int) -> None:
        """`num_samples` are those of the first forward."""
        seed_dropout(module)  # type: ignore[arg-type]  # it works on any module
        self._num_samples = num_samples
        self.specs: list[MaskSpec] = []
        self._layers: list[SeededDropout] = []
        self._hooks = [
            layer.register_forward_pre_hook(self._note)
            for layer in dropout_layers(module)
            if layer.p > 0 and layer.training
        ]

    def _note(self, layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        """In the first forward, note the shape of a layer's mask and give one that drops nothing.

        Layers are in the order in which they run; one that runs twice would need two masks.
        """
        assert isinstance(layer, SeededDropout)
        if layer in self._layers:
            raise NotImplementedError(f"dropout layer {layer.layer} runs twice in one forward")
        shape = layer.mask_shape(tuple(arguments[0].shape), self._num_samples)
        layer.given_mask = torch.ones(self._num_samples, *shape)
        self._layers.append(layer)
        self.specs.append(
            MaskSpec(layer=layer.layer, shape=shape, p=layer.p, channel_wise=layer.channel_wise)
        )

    def first_masks(self) -> list[Tensor]:
        """End the first forward, and give its masks."""
        for hook in self._hooks:
            hook.remove()
        masks = [layer.given_mask for layer in self._layers]
        return [mask for mask in masks if mask is not None]

    def use(self, masks: list[Tensor]) -> None:
        """Give the masks for the next forward, in the order of `specs`."""
        for layer, mask in zip(self._layers, masks, strict=True):
            layer.given_mask = mask


@dataclass(frozen=True)
class Example:
    """Arguments of one step, by which it is traced; lists are in the order of the names."""

    parameters: Tensors
    buffers: Tensors
    masks: Tensors
    samples: Tensor
    gradient: Tensor

    def flat(self) -> Tensors:
        """All of them in the order of the graph's inputs."""
        return [*self.parameters, *self.buffers, *self.masks, self.samples, self.gradient]


@dataclass(frozen=True)
class Traceable:
    """A copy of the device side, ready to be traced, and the names of its tensors.

    Only what is trained counts as a parameter; a frozen parameter is a buffer here. `reached`
    says which parameters the smashed data depend on: like torch, we update only those.
    """

    module: nn.Module
    dropout: DropoutInputs
    parameter_names: list[str]
    buffer_names: list[str]
    reached: list[bool]
    example: Example

    def step(
        self, parameters: Tensors, buffers: Tensors, masks: Tensors, x: Tensor, gradient: Tensor
    ) -> Tensors:
        """Give the smashed data, the new buffers and the gradients of the parameters."""
        self.dropout.use(masks)
        leaves = [parameter.detach().requires_grad_() for parameter in parameters]
        updated = [buffer.clone() for buffer in buffers]
        state = dict(zip(self.parameter_names, leaves, strict=True))
        state |= dict(zip(self.buffer_names, updated, strict=True))
        with torch.enable_grad():
            smashed = functional_call(self.module, state, (x,))
            gradients = self._gradients(smashed, leaves, gradient)
        return [smashed.detach(), *updated, *gradients]

    def _gradients(self, smashed: Tensor, leaves: Tensors, gradient: Tensor) -> Tensors:
        if not any(self.reached):
            return []
        wanted = [leaf for leaf, reached in zip(leaves, self.reached, strict=True) if reached]
        return list(torch.autograd.grad(smashed, wanted, gradient))

    @property
    def gradient_names(self) -> list[str]:
        """The parameters that backward gives gradients of."""
        pairs = zip(self.parameter_names, self.reached, strict=True)
        return [name for name, reached in pairs if reached]


def prepare(module: nn.Module, samples: Tensor, *, training: bool) -> Traceable:
    """Copy a module, lift its dropout masks, and run it once to see what it gives."""
    subject = _nameless(copy.deepcopy(module).train(training))
    dropout = DropoutInputs(subject, len(samples))
    unroll_recurrent(subject)
    state = subject.state_dict(keep_vars=True)
    trained = {name: value for name, value in state.items() if value.requires_grad}
    buffers = {name: value.detach() for name, value in state.items() if name not in trained}
    copies = {name: buffer.clone() for name, buffer in buffers.items()}
    smashed = functional_call(subject, {**trained, **copies}, (samples,))
    gradient = torch.zeros_like(smashed)
    return Traceable(
        module=subject,
        dropout=dropout,
        parameter_names=list(trained),
        buffer_names=list(buffers),
        reached=_reached(smashed, list(trained.values()), training=training),
        example=Example(
            parameters=[value.detach() for value in trained.values()],
            buffers=list(buffers.values()),
            masks=dropout.first_masks(),
            samples=samples,
            gradient=gradient.detach(),
        ),
    )


class _Nameless(nn.Module):
    """A captured network without names of its own, by which torch would find them for modules.

    The user's may be called as well: `layers` is common.
    """

    draws_by_address = True

    def __init__(self, network: GraphNetwork) -> None:
        super().__init__()
        shared = ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set")
        vars(self).update({key: vars(network)[key] for key in shared})
        self._network = (network,)
        """In a tuple, since it is not one more module of this one."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the network, whose state this one's is."""
        outputs: Tensor = self._network[0](x)
        return outputs


def _nameless(module: nn.Module) -> nn.Module:
    return _Nameless(module).train(module.training) if isinstance(module, GraphNetwork) else module


def _reached(smashed: Tensor, parameters: Tensors, *, training: bool) -> list[bool]:
    if not training or not smashed.requires_grad:
        return [False] * len(parameters)
    ones = torch.ones_like(smashed)
    found = torch.autograd.grad(smashed, parameters, ones, allow_unused=True)
    return [gradient is not None for gradient in found]
