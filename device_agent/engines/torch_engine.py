"""The device side on PyTorch, as an engine that can be timed, layer by layer and as it trains."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import nn

from device_agent.engines.activation_cost import STATE_COPIES, fitting_layers, training_bytes
from device_agent.engines.compute_timings import ComputeTimings
from device_agent.engines.measurement import Measurement, Timing
from device_agent.engines.timing import (
    Pass,
    TimedSide,
    choose_cuts,
    divide_among_layers,
    median_pass,
    repeat_passes,
    time_sides,
)
from device_agent.limits import Limits
from profiles.cuts import CutTable
from profiles.units import Floats
from runtime.errors import SettingsError
from runtime.models.cut_table import measure_cut_table
from runtime.models.device_side import SKELETON_FROM_BYTES, DeviceNetwork, DeviceSide
from runtime.models.dropout import set_dropout_keys
from runtime.models.given_gradient import with_gradient
from runtime.models.load import cut_index, split
from runtime.models.sequence import Network, layers_of
from runtime.models.side import Side, empty_state
from runtime.seeding.torch_generator import forked_generator
from runtime.wire.commands import Assignment, OptimizerSpec
from runtime.wire.measures import LayerWork

LAYERS_SHARE = 0.25
"""Part of the budget for layers one by one; the device sides get the rest."""

OpenSide = Callable[[Network], TimedSide]
"""Make some first layers a device side, as it will be trained."""


def time_network(
    table: CutTable,
    layers: Network,
    open_side: OpenSide,
    optimizer: OptimizerSpec,
    x: NDArray[np.float32],
    *,
    budget_s: float,
    clock: Callable[[], float],
) -> Timing[ComputeTimings]:
    """Measure the first layers of a network as this thread computes them on a mini-batch.

    Their buffers may change. The layers above them count by their FLOPs. Torch's random generator
    is after each step as it was before: others may train in between.
    """
    timing = _time_network(table, layers, open_side, optimizer, x, budget_s=budget_s, clock=clock)
    while True:
        with forked_generator():
            try:
                rest_s = next(timing)
            except StopIteration as finished:
                found: ComputeTimings = finished.value
                return found
        yield rest_s


def _time_network(
    table: CutTable,
    layers: Network,
    open_side: OpenSide,
    optimizer: OptimizerSpec,
    x: NDArray[np.float32],
    *,
    budget_s: float,
    clock: Callable[[], float],
) -> Timing[ComputeTimings]:
    timer = LayerTimer(layers, optimizer, torch.from_numpy(x), clock)
    single, _ = median_pass(
        (yield from repeat_passes(timer.time_layers, budget_s=budget_s * LAYERS_SHARE))
    )
    layers, _ = split(layers, len(single.forward_s))
    cuts = choose_cuts(single.forward_s + single.backward_s, first=_first_that_learns(layers))
    sides, relative_deviation = yield from time_sides(
        [open_side(split(layers, cut)[0]) for cut in cuts],
        x,
        budget_s=budget_s * (1 - LAYERS_SHARE),
        clock=clock,
    )
    forward_flop = np.array([layer.forward_flop for layer in table.layers])
    backward_flop = np.array([layer.backward_flop for layer in table.layers])
    forward = _with_layers_above(single.forward_s, forward_flop)
    backward = _with_layers_above(single.backward_s, backward_flop)
    return ComputeTimings(
        layer_names=table.cut_names[1:],
        forward_s=divide_among_layers(sides.forward_s, cuts, forward) / len(x),
        backward_s=divide_among_layers(sides.backward_s, cuts, backward) / len(x),
        relative_deviation=relative_deviation,
        forward_flop=float(forward_flop.sum()),
        backward_flop=float(backward_flop.sum()),
        measured_at_unix_s=time.time(),
        deepest_cut=len(layers) if timer.why_no_deeper else None,
        why_no_deeper=timer.why_no_deeper,
    )


def _with_layers_above(measured_s: Floats, layer_flop: Floats) -> Floats:
    """Add what the layers that were not timed cost at the speed of those that were, [layer]."""
    below, above = layer_flop[: len(measured_s)], layer_flop[len(measured_s) :]
    return np.concatenate([measured_s, above * (measured_s.sum() / (below.sum() or 1.0))])


class LayerTimer:
    """The layers of a network, each trained by itself."""

    def __init__(
        self,
        network: nn.Sequential,
        optimizer: OptimizerSpec,
        batch: torch.Tensor,
        clock: Callable[[], float],
    ) -> None:
        self._batch, self._clock = batch, clock
        network.train()
        set_dropout_keys(network, [((0,), len(batch))])
        self._layers = list(layers_of(network).values())
        self._sides = [_side(nn.Sequential(layer), optimizer) for layer in self._layers]
        self.why_no_deeper = ""
        """What the first layer that does not run here raises, if a layer below it does."""

    def time_layers(self) -> Timing[Pass]:
        """Forward, then backward and update, of one layer after another, [layer]; one step."""
        yield 0.0
        seconds: list[tuple[float, float]] = []
        batch = self._batch
        for layer, side in zip(self._layers, self._sides, strict=True):
            try:
                batch, *taken_s = self._time_layer(layer, side, batch)
            except Exception as error:  # Whatever a layer of the user's or the memory raises.
                if not seconds:
                    raise
                self.why_no_deeper = str(error) or type(error).__name__
                break
            seconds.append((taken_s[0], taken_s[1]))
        del self._layers[len(seconds) :], self._sides[len(seconds) :]
        forward_s, backward_s = np.array(seconds).T
        return Pass(forward_s, backward_s)

    def _time_layer(
        self, layer: nn.Module, side: Side, batch: torch.Tensor
    ) -> tuple[torch.Tensor, float, float]:
        """Give what the layer gives, and its seconds forward and backward."""
        batch = batch.detach().requires_grad_(batch.requires_grad)
        start_s = self._clock()
        output: torch.Tensor = layer(batch)
        forward_s = self._clock() - start_s
        return output, forward_s, self._time_backward(output, side)

    def _time_backward(self, output: torch.Tensor, side: Side) -> float:
        if not output.requires_grad:
            return 0.0
        number = with_gradient(output, torch.full_like(output, 1e-6))
        start_s = self._clock()
        torch.autograd.backward(number)
        side.step(0.0)
        return self._clock() - start_s


def _first_that_learns(network: nn.Sequential) -> int:
    """The cut above the first layer with parameters; 1 where there is none."""
    for cut, layer in enumerate(layers_of(network).values(), start=1):
        if any(parameter.requires_grad for parameter in layer.parameters()):
            return cut
    return 1


def _side(layers: nn.Sequential, optimizer: OptimizerSpec) -> Side:
    return Side(layers, optimizer, carry_state=True, state=empty_state())


class TorchEngine(DeviceNetwork):
    """A job's network, built on the device from its name."""

    graphs = None

    def __init__(
        self,
        assignment: Assignment,
        *,
        sample_shape: tuple[int, ...],
        limits: Limits | None = None,
        skeleton_from_bytes: int = SKELETON_FROM_BYTES,
    ) -> None:
        """Build it, without numbers if it is large; SettingsError where the limits are less."""
        self._limits = limits or Limits()
        super().__init__(
            assignment, sample_shape=sample_shape, skeleton_from_bytes=skeleton_from_bytes
        )

    def _build(self) -> Network:
        """Build it; without numbers it takes no memory, whatever its options."""
        if torch.get_default_device().type != "meta":
            self._check_memory("the network", self._state_bytes)
        return super()._build()

    def open(self, cut: int) -> DeviceSide:
        """Cut the network after so many layers, if training these takes no more than it may."""
        is_open = (self._open_at or (0,))[0] == cut
        self.check_batch(cut, 0 if is_open else self.assignment.batch_size)
        return super().open(cut)

    def check_batch(self, cut: int, num_samples: int) -> None:
        """SettingsError if a step of so many samples takes more than it may here."""
        layers, what = split(self.network, cut)[0], f"training {cut} layers"
        held_bytes = STATE_COPIES * sum(tensor.nbytes for tensor in layers.state_dict().values())
        self._check_memory(what, held_bytes)
        if ":" not in self.assignment.network and num_samples:
            batch_bytes = num_samples * training_bytes(layers, self.sample_shape)
            self._check_memory(f"{what} on {num_samples} samples", held_bytes + batch_bytes)

    def _check_memory(self, what: str, needed_bytes: float) -> None:
        allowed_bytes = self._limits.memory_bytes or psutil.virtual_memory().available
        if needed_bytes > allowed_bytes:
            raise SettingsError(
                f"{what} takes {needed_bytes / 1e6:.0f} MB here, and may take "
                f"{allowed_bytes / 1e6:.0f}; --max-memory allows more"
            )

    def cut_of(self, layer: str) -> int:
        """Find a layer by its name or number."""
        return cut_index(self.network, layer)

    def use_threads(self, num_threads: int) -> None:
        """Set the threads of all that this thread computes."""
        if num_threads != torch.get_num_threads():
            torch.set_num_threads(num_threads)

    def measure_layers(
        self, batch: NDArray[np.float32], *, budget_s: float, clock: Callable[[], float]
    ) -> Measurement[ComputeTimings]:
        """Time a copy of the layers that this job may give it, at several cuts and one by one."""
        return Measurement(
            key=("torch", self.assignment.encode(), batch.shape, clock),
            take=lambda: self._time(batch, budget_s=budget_s, clock=clock),
            read=lambda found: found,
        )

    def _time(
        self, batch: NDArray[np.float32], *, budget_s: float, clock: Callable[[], float]
    ) -> Timing[ComputeTimings]:
        table = measure_cut_table(self.network, name="", input_shape=batch.shape[1:])
        deepest = self.assignment.deepest_cut
        wanted = len(self.network) if deepest is None else min(max(deepest, 1), len(self.network))
        fitting, why_no_deeper = fitting_layers(table, wanted, batch_size=len(batch))
        found = yield from time_network(
            table,
            self.copy(fitting),
            self.side,
            self.assignment.optimizer,
            batch,
            budget_s=budget_s,
            clock=clock,
        )
        if found.deepest_cut is None and why_no_deeper:
            return replace(found, deepest_cut=fitting, why_no_deeper=why_no_deeper)
        return found

    def measure_cut(
        self,
        cut: int,  # noqa: ARG002
        layers: Sequence[LayerWork],  # noqa: ARG002
        batch: NDArray[np.float32],
        *,
        digest: str,  # noqa: ARG002
        budget_s: float,
        clock: Callable[[], float],
    ) -> Measurement[ComputeTimings]:
        """Time the whole network: it is here."""
        return self.measure_layers(batch, budget_s=budget_s, clock=clock)

    def random_batch(self) -> NDArray[np.float32]:
        """Draw a mini-batch for a network that has no data."""
        shape = (self.assignment.batch_size, *self.sample_shape)
        return np.random.default_rng(0).standard_normal(shape).astype(np.float32)
