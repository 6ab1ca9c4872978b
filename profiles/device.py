"""What is known of a device, or of the server, at one moment."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from profiles.corrections import Corrections
from profiles.cuts import CutTable
from profiles.link import LinkState
from profiles.power import Power
from profiles.units import Floats


@dataclass(frozen=True)
class ComputeState:
    """Seconds that one sample takes, forward and backward, at every cut: [cut]."""

    forward_s: Floats
    backward_s: Floats

    @classmethod
    def of_lists(
        cls, *, forward_s: Sequence[float] | None, backward_s: Sequence[float] | None
    ) -> "ComputeState | None":
        """Take seconds as they were written down, [cut]; None where they were not known."""
        if forward_s is None or backward_s is None:
            return None
        return cls(np.array(forward_s), np.array(backward_s))

    @classmethod
    def of_device(
        cls, cuts: CutTable, *, forward_flop_per_s: float, backward_flop_per_s: float
    ) -> "ComputeState":
        """Derive a device's seconds from its effective speeds."""
        return cls(
            forward_s=cuts.device_forward_flop / forward_flop_per_s,
            backward_s=cuts.device_backward_flop / backward_flop_per_s,
        )

    @classmethod
    def of_server(
        cls, cuts: CutTable, *, forward_flop_per_s: float, backward_flop_per_s: float
    ) -> "ComputeState":
        """Derive the server's seconds from its effective speeds."""
        return cls(
            forward_s=cuts.server_forward_flop / forward_flop_per_s,
            backward_s=cuts.server_backward_flop / backward_flop_per_s,
        )

    @classmethod
    def of_device_layers(
        cls, *, layer_forward_s: Floats, layer_backward_s: Floats
    ) -> "ComputeState":
        """Add up a device's measured seconds per sample of each layer, [layer]."""
        return cls(
            forward_s=_sums_before(layer_forward_s), backward_s=_sums_before(layer_backward_s)
        )

    @classmethod
    def of_server_layers(
        cls, *, layer_forward_s: Floats, layer_backward_s: Floats
    ) -> "ComputeState":
        """Add up the server's measured seconds per sample of each layer, [layer]."""
        return cls(
            forward_s=_sums_before(layer_forward_s[::-1])[::-1],
            backward_s=_sums_before(layer_backward_s[::-1])[::-1],
        )


@dataclass(frozen=True)
class DeviceState:
    """A device as the planner sees it; what was never measured is None."""

    device: str
    num_samples: int
    free_memory_bytes: float
    compute: ComputeState | None
    link: LinkState | None
    corrections: Corrections = field(default_factory=Corrections.none)
    label_counts: tuple[int, ...] | None = None
    """Samples of each class, [class]; published only by devices that were told to."""
    deepest_cut: int | None = None
    """Layers that it can run at most, where it cannot run all."""
    why_no_deeper: str = ""
    power: Power | None = None
    """What it draws, where that is known."""
    shallowest_cut: int = 0
    """Layers that its owner has it run at least."""


def _sums_before(values: Floats) -> Floats:
    return np.concatenate([[0.0], np.cumsum(values)])
