"""How fast a device computes: repeated passes through its layers, and what they come to."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from profiles.units import Floats
from runtime.published import ComputeProfile, LayerTiming

COMPUTE_PROBE_S = 2.0
"""The longest that a measurement may take, its last pass excepted."""
MIN_PASSES, MAX_PASSES = 3, 12
WARM_UP_PASSES = 1

_NORMAL_DEVIATION = 1.4826


@dataclass(frozen=True)
class Pass:
    """Seconds of one mini-batch through every layer, [layer]; backward includes the update."""

    forward_s: Floats
    backward_s: Floats


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

    def slowed(self, factor: float) -> "ComputeTimings":
        """The same on a device that takes so many times as long."""
        return ComputeTimings(
            self.layer_names,
            self.forward_s * factor,
            self.backward_s * factor,
            self.relative_deviation,
            self.forward_flop,
            self.backward_flop,
        )

    def profile(self, *, network: str, batch_size: int, now_unix_s: float) -> ComputeProfile:
        """Turn into what is published; an empty `network` leaves the layers out."""
        layers = zip(self.layer_names, self.forward_s, self.backward_s, strict=True)
        forward_s, backward_s = float(self.forward_s.sum()), float(self.backward_s.sum())
        forward_flop_per_s = self.forward_flop / forward_s
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
            backward_flop_per_s=self.backward_flop / backward_s
            if self.backward_flop
            else forward_flop_per_s,
            relative_deviation=self.relative_deviation,
            measured_at_unix_s=now_unix_s,
        )


def repeat_passes(
    run_pass: Callable[[], Pass],
    *,
    budget_s: float,
    clock: Callable[[], float] = perf_counter,
    rest: Callable[[], None] = lambda: None,
) -> list[Pass]:
    """Run passes until the budget is spent: a warm-up, then at least a few that count.

    `rest` comes before each that counts.
    """
    start_s = clock()
    for _ in range(WARM_UP_PASSES):
        run_pass()
    passes: list[Pass] = []
    while len(passes) < MAX_PASSES:
        if len(passes) >= MIN_PASSES and clock() - start_s >= budget_s:
            break
        rest()
        passes.append(run_pass())
    return passes


def median_pass(passes: list[Pass]) -> tuple[Pass, float]:
    """Medians layer by layer, and the relative deviation of the whole between passes."""
    forward_s = np.array([each.forward_s for each in passes])
    backward_s = np.array([each.backward_s for each in passes])
    wholes_s = forward_s.sum(axis=1) + backward_s.sum(axis=1)
    middle_s = float(np.median(wholes_s))
    deviation_s = _NORMAL_DEVIATION * float(np.median(np.abs(wholes_s - middle_s)))
    middle = Pass(np.median(forward_s, axis=0), np.median(backward_s, axis=0))
    return middle, deviation_s / middle_s if middle_s else 0.0


def rescale(layers: Pass, *, whole_forward_s: float, whole_backward_s: float) -> Pass:
    """Make the layers add up to what the whole took, so that what runs between them is shared."""

    def scaled(layer_s: Floats, whole_s: float) -> Floats:
        total_s = float(layer_s.sum())
        return layer_s * (whole_s / total_s) if total_s else layer_s

    return Pass(
        scaled(layers.forward_s, whole_forward_s), scaled(layers.backward_s, whole_backward_s)
    )
