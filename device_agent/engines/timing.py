"""How fast a device computes: repeated steps of training at several cuts, and what they come to.

Device sides are timed as a job runs them, by the executors that will train: after a rest before
each pass, since a training step waits for the network before its forward and before its backward.
What a pass costs beyond its layers falls to the first layer, which every device side has.
All of it goes step by step (`device_agent.engines.measurement`), so that it can take turns with
training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from device_agent.engines.measurement import Timing
from profiles.units import Floats

COMPUTE_PROBE_S = 2.0
"""The longest that a measurement may take, its last pass excepted."""
MIN_PASSES, MAX_PASSES = 3, 12
WARM_UP_PASSES = 1
REST_S = 0.03
"""Pause before a forward or a backward pass: caches and clock cool down as they do in training."""
NUM_CUTS = 3
"""Device sides that are timed, beside that of the first layer that learns."""

_NORMAL_DEVIATION = 1.4826


class TimedSide(Protocol):
    """What is timed; `device_agent.engines.engine.Executor` is one."""

    @property
    def learns(self) -> bool:
        """Whether any of its parameters does."""
        ...

    def forward(
        self, x: NDArray[np.float32], *, dropout_key: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """Smashed data of a mini-batch."""
        ...

    def backward(self, gradient: NDArray[np.float32], *, learning_rate: float) -> None:
        """Gradients and update."""
        ...


@dataclass(frozen=True)
class Pass:
    """Seconds of one mini-batch, for each layer by itself or for each of some device sides."""

    forward_s: Floats
    backward_s: Floats
    """The update included."""


def time_sides(
    sides: Sequence[TimedSide],
    batch: NDArray[np.float32],
    *,
    budget_s: float,
    clock: Callable[[], float],
) -> Timing[tuple[Pass, float]]:
    """Time training steps of several device sides, in turns, [side]; also the deviation.

    The deviation is relative, that of all sides together between repetitions. The weights stay
    as they are, buffers do not. A budget that is too short for full rests has shorter ones.
    """
    num_rests = 2 * len(sides) * (WARM_UP_PASSES + MIN_PASSES)
    rest_s = min(REST_S, budget_s / num_rests)
    steps = [_TimedStep(side, batch, clock, rest_s=rest_s) for side in sides]

    def run_pass() -> Timing[Pass]:
        forward_s, backward_s = np.zeros(len(steps)), np.zeros(len(steps))
        for side, step in enumerate(steps):
            forward_s[side], backward_s[side] = yield from step.take()
        return Pass(forward_s, backward_s)

    return median_pass((yield from repeat_passes(run_pass, budget_s=budget_s)))


class _TimedStep:
    """A training step on random numbers, timed."""

    def __init__(
        self,
        side: TimedSide,
        batch: NDArray[np.float32],
        clock: Callable[[], float],
        *,
        rest_s: float,
    ) -> None:
        self._side, self._batch = side, batch
        self._clock, self._rest_s = clock, rest_s
        self._learns = side.learns

    def take(self) -> Timing[tuple[float, float]]:
        """Seconds of the forward pass, and of the backward pass with the update."""
        yield self._rest_s
        start_s = self._clock()
        smashed = self._side.forward(self._batch, dropout_key=(0,))
        forward_s = self._clock() - start_s
        if not self._learns:
            return forward_s, 0.0
        gradient = np.full_like(smashed, 1e-6)
        yield self._rest_s
        start_s = self._clock()
        self._side.backward(gradient, learning_rate=0.0)
        return forward_s, self._clock() - start_s


def choose_cuts(layer_cost: Floats, *, first: int) -> list[int]:
    """Cuts that divide the cost of the layers evenly, `first` and the last one among them.

    `first` is the shallowest worth timing: the first layer that learns.
    """
    done = np.cumsum(layer_cost)
    wanted = done[-1] * np.arange(1, NUM_CUTS) / NUM_CUTS
    inner = np.searchsorted(done, wanted) + 1
    return sorted({first, *(int(cut) for cut in inner if cut > first), len(layer_cost)})


def divide_among_layers(side_s: Floats, cuts: Sequence[int], layer_cost: Floats) -> Floats:
    """Seconds of each layer from those of the device sides at some rising cuts, [layer].

    What lies between two cuts is divided by cost, and so is what a pass costs by itself, among
    the layers below the first cut. Layers above the last cut cost as much as those below it do.
    """
    rising_s = np.maximum.accumulate(side_s)
    layer_s = np.zeros(len(layer_cost))
    for (start, end), span_s in zip(
        pairwise([0, *cuts]), np.diff(rising_s, prepend=0.0), strict=True
    ):
        cost = layer_cost[start:end]
        even = np.full(end - start, 1 / (end - start))
        layer_s[start:end] = span_s * (cost / cost.sum() if cost.sum() else even)
    below = layer_cost[: cuts[-1]].sum()
    if below:
        layer_s[cuts[-1] :] = layer_cost[cuts[-1] :] * rising_s[-1] / below
    return layer_s


def repeat_passes(
    run_pass: Callable[[], Timing[Pass]],
    *,
    budget_s: float,
    clock: Callable[[], float] = perf_counter,
) -> Timing[list[Pass]]:
    """Run passes until the budget is spent: a warm-up, then at least a few that count."""
    start_s = clock()
    for _ in range(WARM_UP_PASSES):
        yield from run_pass()
    passes: list[Pass] = []
    while len(passes) < MAX_PASSES:
        if len(passes) >= MIN_PASSES and clock() - start_s >= budget_s:
            break
        passes.append((yield from run_pass()))
    return passes


def median_pass(passes: list[Pass]) -> tuple[Pass, float]:
    """Medians one by one, and the relative deviation of their sum between passes."""
    forward_s = np.array([each.forward_s for each in passes])
    backward_s = np.array([each.backward_s for each in passes])
    wholes_s = forward_s.sum(axis=1) + backward_s.sum(axis=1)
    middle_s = float(np.median(wholes_s))
    deviation_s = _NORMAL_DEVIATION * float(np.median(np.abs(wholes_s - middle_s)))
    middle = Pass(np.median(forward_s, axis=0), np.median(backward_s, axis=0))
    return middle, deviation_s / middle_s if middle_s else 0.0
