"""Timing a network's layers on PyTorch: each by itself, then all of them as training runs them."""

import copy
import time
from collections.abc import Callable
from time import perf_counter

import numpy as np
import torch
from torch import nn

from device_agent.compute_probe import ComputeTimings, Pass, median_pass, repeat_passes, rescale
from profiles.cuts import CutTable
from runtime.messages import OptimizerSpec
from runtime.models.cut_table import measure_cut_table
from runtime.models.dropout import seed_dropout, set_dropout_keys
from runtime.models.load import input_shape_of, load_network
from runtime.models.sequence import layers_of
from runtime.models.side import Side, empty_state
from runtime.published import ComputeProfile

GENERIC_NETWORK, GENERIC_BATCH = "lenet", 16
"""What a device without a job is measured with: convolutions and linear layers."""
REST_S = 0.03
"""Pause before each pass through the whole network."""
WHOLE_SHARE = 0.5
"""Part of the budget for the whole network; its layers one by one get the rest."""


class LayerTimer:
    """A copy of a network, so that nothing of the job is touched."""

    def __init__(
        self,
        network: nn.Sequential,
        optimizer: OptimizerSpec,
        *,
        sample_shape: tuple[int, ...],
        batch_size: int,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._network = copy.deepcopy(network).train()
        self._layers = layers_of(self._network)
        self._batch = torch.randn(batch_size, *sample_shape)
        set_dropout_keys(self._network, [((0,), batch_size)])
        self._sides = [_side(nn.Sequential(layer), optimizer) for layer in self._layers.values()]
        self._whole = _side(self._network, optimizer)

    def time_layers(self) -> Pass:
        """Every layer by itself: forward, then backward and update."""
        forward_s, backward_s = [], []
        batch = self._batch
        for layer, side in zip(self._layers.values(), self._sides, strict=True):
            batch = batch.detach().requires_grad_(batch.requires_grad)
            start_s = self._clock()
            output = layer(batch)
            forward_s.append(self._clock() - start_s)
            backward_s.append(self._time_backward(output, side))
            batch = output
        return Pass(np.array(forward_s), np.array(backward_s))

    def time_whole(self) -> Pass:
        """All layers, as a device trains them."""
        start_s = self._clock()
        output = self._network(self._batch)
        forward_s = self._clock() - start_s
        return Pass(np.array([forward_s]), np.array([self._time_backward(output, self._whole)]))

    def _time_backward(self, output: torch.Tensor, side: Side) -> float:
        if not output.requires_grad:
            return 0.0
        gradient = torch.full_like(output, 1e-6)
        start_s = self._clock()
        torch.autograd.backward(output, gradient)
        side.step(0.0)
        return self._clock() - start_s


def time_network(
    network: nn.Sequential,
    optimizer: OptimizerSpec,
    *,
    sample_shape: tuple[int, ...],
    batch_size: int,
    budget_s: float,
    clock: Callable[[], float],
) -> ComputeTimings:
    """Measure a network as this thread computes it; it stays as it was."""
    with torch.random.fork_rng(devices=[]):
        timer = LayerTimer(
            network, optimizer, sample_shape=sample_shape, batch_size=batch_size, clock=clock
        )
        wholes = repeat_passes(timer.time_whole, budget_s=budget_s * WHOLE_SHARE, rest=_rest)
        layers, _ = median_pass(repeat_passes(timer.time_layers, budget_s=budget_s / 2))
    whole, relative_deviation = median_pass(wholes)
    scaled = rescale(
        layers,
        whole_forward_s=float(whole.forward_s[0]),
        whole_backward_s=float(whole.backward_s[0]),
    )
    table: CutTable = measure_cut_table(network, name="", input_shape=sample_shape)
    return ComputeTimings(
        layer_names=tuple(layers_of(network)),
        forward_s=scaled.forward_s / batch_size,
        backward_s=scaled.backward_s / batch_size,
        relative_deviation=relative_deviation,
        forward_flop=float(table.device_forward_flop[-1]),
        backward_flop=float(table.device_backward_flop[-1]),
    )


def _rest() -> None:
    """Let caches and clock cool down, as they do while a training step waits for the network."""
    time.sleep(REST_S)


def network_timings(
    name: str, *, batch_size: int, budget_s: float, clock: Callable[[], float]
) -> ComputeTimings:
    """Measure a network by its name, with stochastic gradient descent."""
    network = seed_dropout(load_network(name, {}, seed=0))
    return time_network(
        network,
        OptimizerSpec(),
        sample_shape=input_shape_of(network),
        batch_size=batch_size,
        budget_s=budget_s,
        clock=clock,
    )


def generic_profile(*, budget_s: float, slowdown: float) -> ComputeProfile:
    """Measure a small network of common layers, for a device that has no job yet.

    `slowdown` is that of an emulated device, 1 for this machine.
    """
    clock = perf_counter if slowdown == 1 else time.thread_time
    timings = network_timings(
        GENERIC_NETWORK, batch_size=GENERIC_BATCH, budget_s=budget_s, clock=clock
    )
    slowed = timings.slowed(slowdown)
    return slowed.profile(network="", batch_size=GENERIC_BATCH, now_unix_s=time.time())


def _side(layers: nn.Sequential, optimizer: OptimizerSpec) -> Side:
    return Side(layers, optimizer, carry_state=True, state=empty_state())
