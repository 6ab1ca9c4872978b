"""The device side on PyTorch, as an engine that can also be timed."""

import copy
import time
from collections.abc import Callable
from time import perf_counter

from device_agent.compute_probe import ComputeTimings
from device_agent.torch_timing import time_network
from runtime.messages import Assignment, OptimizerSpec
from runtime.models.device_side import DeviceNetwork
from runtime.models.load import input_shape_of, load_network
from runtime.published import ComputeProfile

GENERIC_NETWORK, GENERIC_BATCH = "lenet", 16
"""What a device without a job is measured with: convolutions and linear layers."""


class TorchEngine(DeviceNetwork):
    """A job's network, built on the device from its name."""

    graphs = None

    def layer_timings(
        self, *, batch_size: int, budget_s: float, clock: Callable[[], float]
    ) -> ComputeTimings:
        """Measure a copy of the network, at several cuts and layer by layer between them."""
        return time_network(
            copy.deepcopy(self.network),
            self.cut_open,
            self.assignment.optimizer,
            sample_shape=self.sample_shape,
            batch_size=batch_size,
            budget_s=budget_s,
            clock=clock,
        )


def built_in_engine(name: str, *, batch_size: int) -> TorchEngine:
    """A built-in network with plain stochastic gradient descent, for a device without a job."""
    assignment = Assignment(
        run=0,
        network=name,
        options={},
        loss="cross_entropy",
        seed=0,
        batch_size=batch_size,
        held_out=0.0,
        max_evaluation_samples=1,
        num_classes=None,
        optimizer=OptimizerSpec(),
        carry_state=False,
    )
    sample_shape = input_shape_of(load_network(name, {}, seed=0))
    return TorchEngine(assignment, sample_shape=sample_shape)


def generic_profile(*, budget_s: float, slowdown: float) -> ComputeProfile:
    """Measure a small network of common layers, for a device that has no job yet.

    `slowdown` is that of an emulated device, 1 for this machine.
    """
    clock = perf_counter if slowdown == 1 else time.thread_time
    engine = built_in_engine(GENERIC_NETWORK, batch_size=GENERIC_BATCH)
    timings = engine.layer_timings(batch_size=GENERIC_BATCH, budget_s=budget_s, clock=clock)
    slowed = timings.slowed(slowdown)
    return slowed.profile(network="", batch_size=GENERIC_BATCH, now_unix_s=time.time())
