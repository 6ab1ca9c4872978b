"""What each layer of a network costs, and so what each cut would.

A *cut* is the number of layers on the device: 0 leaves the whole network to the server,
`num_layers` puts all of it on the device. FLOPs and bits are per sample, except those of the
device-side model itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from profiles.units import BITS_PER_BYTE, Floats

__all__ = ["BITS_PER_BYTE", "CutTable", "Floats", "LayerCost", "device_round_bytes"]


@dataclass(frozen=True)
class LayerCost:
    """One layer: its work, its parameters and what it hands to the next layer."""

    name: str
    forward_flop: float
    """FLOPs of one sample's forward pass; a multiply and an add are two."""
    backward_flop: float
    """FLOPs of one sample's backward pass."""
    state_bytes: int
    """Parameters that learn, and buffers, as they travel."""
    activation_shape: tuple[int, ...]
    """Output shape of one sample, without the batch axis."""
    activation_bytes: int
    state_shapes: tuple[tuple[int, ...], ...] = ()
    """Of its float32 tensors as they travel; empty where nobody knows."""
    frozen_bytes: int = 0
    """Parameters that do not learn, and so travel once, not with each device-side model."""
    kind: str = ""
    """What the layer is, as its class is named: `Conv2d`, `ReLU`; empty where nobody knows."""


@dataclass(frozen=True)
class CutTable:
    """The costs of a network's layers in order, and the sums that planning needs, as [cut]."""

    network: str
    input_shape: tuple[int, ...]
    input_bytes: int
    layers: tuple[LayerCost, ...]

    @property
    def num_layers(self) -> int:
        """How many layers the network has; cuts run from 0 to this, both included."""
        return len(self.layers)

    @cached_property
    def cut_names(self) -> tuple[str, ...]:
        """The name of each cut, [cut]: the last layer on the device, or `input` for cut 0."""
        return ("input", *(layer.name for layer in self.layers))

    @cached_property
    def device_forward_flop(self) -> Floats:
        """FLOPs of the device's forward pass for one sample, [cut]."""
        return _sums_before([layer.forward_flop for layer in self.layers])

    @cached_property
    def device_backward_flop(self) -> Floats:
        """FLOPs of the device's backward pass for one sample, [cut]."""
        return _sums_before([layer.backward_flop for layer in self.layers])

    @cached_property
    def server_forward_flop(self) -> Floats:
        """FLOPs of the server's forward pass for one sample, [cut]."""
        whole_flop: float = self.device_forward_flop[-1]
        return whole_flop - self.device_forward_flop

    @cached_property
    def server_backward_flop(self) -> Floats:
        """FLOPs of the server's backward pass for one sample, [cut]."""
        whole_flop: float = self.device_backward_flop[-1]
        return whole_flop - self.device_backward_flop

    @cached_property
    def smashed_bits(self) -> Floats:
        """Bits of one sample's smashed data (and of its gradient), [cut]."""
        sizes = [self.input_bytes, *(layer.activation_bytes for layer in self.layers)]
        return np.array(sizes, dtype=np.float64) * BITS_PER_BYTE

    def at(self, cuts: Sequence[int]) -> "CutTable":
        """Have these cuts alone, in order: each layer is all that lies between two of them."""
        edges = zip([0, *cuts[:-1]], cuts, strict=True)
        return replace(self, layers=tuple(_joined(self.layers[i:j]) for i, j in edges))

    @cached_property
    def learns(self) -> NDArray[np.bool_]:
        """Whether anything on the device learns, [cut]; else no gradient comes back."""
        return self.device_backward_flop > 0

    @cached_property
    def device_frozen_bytes(self) -> Floats:
        """Bytes of the device side that do not learn, [cut]."""
        return _sums_before([layer.frozen_bytes for layer in self.layers])

    @cached_property
    def device_model_bits(self) -> Floats:
        """Bits of the device-side model, parameters that learn and buffers, [cut]."""
        return _sums_before([layer.state_bytes for layer in self.layers]) * BITS_PER_BYTE


def _joined(layers: Sequence[LayerCost]) -> LayerCost:
    """Take some layers, one after another, for one."""
    return replace(
        layers[-1],
        forward_flop=sum(layer.forward_flop for layer in layers),
        backward_flop=sum(layer.backward_flop for layer in layers),
        state_bytes=sum(layer.state_bytes for layer in layers),
        state_shapes=tuple(shape for layer in layers for shape in layer.state_shapes),
        frozen_bytes=sum(layer.frozen_bytes for layer in layers),
    )


def _sums_before(values: list[float] | list[int]) -> Floats:
    return np.concatenate([[0.0], np.cumsum(np.array(values, dtype=np.float64))])


def device_round_bytes(table: CutTable, *, batch_size: int, local_epochs: int) -> Floats:
    """Bytes that a device exchanges in a round, [cut].

    Smashed data up and gradients down in each local epoch, and the device-side model down and up
    once. Nothing comes back where nothing on the device learns, as at cut 0, and there are no
    smashed data at the last cut, where the loss is taken to be on the device too. Labels and
    message headers are left out.
    """
    exchanges = local_epochs * batch_size
    smashed_bytes = table.smashed_bits / BITS_PER_BYTE * exchanges
    both_ways = np.where(table.learns, 2, 1) * smashed_bytes
    both_ways[-1] = 0
    return both_ways + 2 * table.device_model_bits / BITS_PER_BYTE
