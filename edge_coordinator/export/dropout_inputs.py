"""Dropout whose masks are inputs of the graph: the device draws them, once for both engines."""

from typing import Any

import torch
from torch import Tensor, nn

from runtime.models.dropout import SeededDropout, dropout_layers, seed_dropout
from runtime.wire.device_graphs import MaskSpec


class DropoutInputs:
    """The dropout layers of a module, which from now on use the masks that they are given."""

    def __init__(self, module: nn.Module) -> None:
        seed_dropout(module)  # type: ignore[arg-type]  # it works on any module
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
        shape = layer.mask_shape(tuple(arguments[0].shape))
        layer.given_mask = torch.ones(shape)
        self._layers.append(layer)
        self.specs.append(
            MaskSpec(layer=layer.layer, shape=shape[1:], p=layer.p, channel_wise=layer.channel_wise)
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
