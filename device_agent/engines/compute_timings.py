"""What a measurement of compute comes to: seconds of each layer, and what is published of them."""

from dataclasses import dataclass, replace

from profiles.units import Floats
from runtime.wire.fields import LEAST_RATE, MAX_FLOP_PER_S
from runtime.wire.measures import MAX_REASON_LETTERS, ComputeProfile, LayerTiming

LEAST_S = 1e-9


@dataclass(frozen=True)
class ComputeTimings:
    """What an engine measured: seconds of one sample in each layer, [layer]."""

    layer_names: tuple[str, ...]
    forward_s: Floats
    backward_s: Floats
    relative_deviation: float
    forward_flop: float
    """FLOPs of one sample through all layers."""
    backward_flop: float
    measured_at_unix_s: float
    deepest_cut: int | None = None
    """Up to where the layers could be measured, if not all that were asked for."""
    why_no_deeper: str = ""

    def slowed(self, factor: float) -> "ComputeTimings":
        """The same on a device that takes so many times as long."""
        return replace(self, forward_s=self.forward_s * factor, backward_s=self.backward_s * factor)

    def profile(self, *, network: str, batch_size: int) -> ComputeProfile:
        """Turn into what is published; an empty `network` leaves the layers out."""
        layers = zip(self.layer_names, self.forward_s, self.backward_s, strict=True)
        forward_s, backward_s = float(self.forward_s.sum()), float(self.backward_s.sum())
        forward_flop_per_s = _rate(self.forward_flop, forward_s)
        return ComputeProfile(
            network=network,
            batch_size=batch_size,
            layers=tuple(
                LayerTiming(name=name, forward_s=forward, backward_s=backward)
                for name, forward, backward in layers
            )
            if network
            else (),
            forward_flop_per_s=forward_flop_per_s,
            # Where nothing learns there is no backward pass to rate.
            backward_flop_per_s=_rate(self.backward_flop, backward_s)
            if self.backward_flop
            else forward_flop_per_s,
            relative_deviation=self.relative_deviation,
            measured_at_unix_s=self.measured_at_unix_s,
            deepest_cut=self.deepest_cut if network else None,
            why_no_deeper=self.why_no_deeper[:MAX_REASON_LETTERS],
        )


def _rate(flop: float, seconds: float) -> float:
    """FLOPs per second, as far as a profile may say; a clock can show next to nothing."""
    return min(max(flop / max(seconds, LEAST_S), LEAST_RATE), MAX_FLOP_PER_S)
