"""What each layer of a network costs, and so what each cut would.

A *cut* is the number of layers on the device: 0 leaves the whole network to the server,
`num_layers` puts all of it on the device. FLOPs and bits are per sample, except those of the
device-side model itself.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from profiles.units import BITS_PER_BYTE, Floats

__all__ = ["BITS_PER_BYTE", "CutTable", "Floats", "LayerCost"]


@dataclass(frozen=True)
class LayerCost:
    """One layer: its work, its parameters and what it hands to the next layer."""

    name: str
    forward_flop: float
    """FLOPs of one sample's forward pass; a multiply and an add are two."""
    backward_flop: float
    """FLOPs of one sample's backward pass."""
    state_bytes: int
    """Parameters and buffers, as they travel."""
    activation_shape: tuple[int, ...]
    """Output shape of one sample, without the batch axis."""
    activation_bytes: int
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

    @cached_property
    def device_model_bits(self) -> Floats:
        """Bits of the device-side model, parameters and buffers, [cut]."""
        return _sums_before([layer.state_bytes for layer in self.layers]) * BITS_PER_BYTE


def _sums_before(values: list[float] | list[int]) -> Floats:
    return np.concatenate([[0.0], np.cumsum(np.array(values, dtype=np.float64))])
