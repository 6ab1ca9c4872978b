"""The device side on PyTorch, as an engine that can also be timed."""

import copy
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from device_agent.compute_timings import ComputeTimings
from device_agent.generic import built_in_assignment
from device_agent.measurement import Measurement
from device_agent.torch_timing import time_network
from runtime.models.device_side import DeviceNetwork
from runtime.models.load import input_shape_of, load_network
from runtime.wire.commands import LayerWork


class TorchEngine(DeviceNetwork):
    """A job's network, built on the device from its name."""

    graphs = None

    def measure_layers(
        self, batch: NDArray[np.float32], *, budget_s: float, clock: Callable[[], float]
    ) -> Measurement[ComputeTimings]:
        """Time a copy of the network, at several cuts and layer by layer between them."""
        return Measurement(
            key=("torch", self.assignment.encode(), batch.shape, clock),
            take=lambda: time_network(
                copy.deepcopy(self.network),
                self.cut_open,
                self.assignment.optimizer,
                batch,
                budget_s=budget_s,
                clock=clock,
            ),
            read=lambda found: found,
        )

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


def built_in_engine(name: str, *, batch_size: int) -> TorchEngine:
    """A built-in network with plain stochastic gradient descent, for a device without a job."""
    sample_shape = input_shape_of(load_network(name, {}, seed=0))
    assignment = built_in_assignment(name, batch_size=batch_size)
    return TorchEngine(assignment, sample_shape=sample_shape)
