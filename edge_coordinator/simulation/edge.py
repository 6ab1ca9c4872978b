"""A turn of the edge model in the thread of a simulation."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import torch

from edge_coordinator.training.algorithm import ServerStep, Smashed
from edge_coordinator.training.overlapped_turn import AggregatedMicroBatch, MicroBatch
from edge_coordinator.training.turn import Turn
from runtime.wire.frames import Tensor

Result = TypeVar("Result")


class InlineEdge:
    """One turn of the edge model in this thread; keeps the contract of `algorithm.Edge`."""

    def __init__(self, turn: Turn, *, num_threads: int) -> None:
        self._turn = turn
        self._num_threads = num_threads

    async def device_side(self) -> Sequence[Tensor]:
        """The device-side model."""
        return self._turn.device_side()

    async def step(self, smashed: Mapping[str, Smashed]) -> ServerStep:
        """Forward, loss, backward, update of the server-side model."""
        return self._with_own_threads(lambda: self._turn.step(smashed))

    async def begin(self, batch_sizes: Mapping[str, int]) -> None:
        """Begin a step that comes in micro-batches."""
        self._turn.begin(batch_sizes)

    async def add(self, micro_batch: MicroBatch) -> Tensor | None:
        """Forward, loss and backward of one micro-batch; the device's gradient."""
        return self._with_own_threads(
            lambda: self._turn.add(micro_batch.device, micro_batch.rows, micro_batch.smashed)
        )

    async def add_together(self, batch: AggregatedMicroBatch) -> Tensor | None:
        """Forward and loss of the same samples of all devices, backward once."""
        return self._with_own_threads(lambda: self._turn.add_together(batch.of_devices))

    async def update(self, devices: Collection[str]) -> float:
        """Update the server-side model by what all of these devices sent; the mean loss."""
        return self._with_own_threads(lambda: self._turn.update(devices))

    async def aggregate(
        self, weights: Mapping[str, Sequence[Tensor]], sample_counts: Mapping[str, int]
    ) -> None:
        """Take over what becomes of the devices' models."""
        self._turn.aggregate(weights, sample_counts)

    def _with_own_threads(self, work: Callable[[], Result]) -> Result:
        """Compute with as many threads as a real run's server: others sum in another order."""
        before = torch.get_num_threads()
        if before == self._num_threads:
            return work()
        torch.set_num_threads(self._num_threads)
        try:
            return work()
        finally:
            torch.set_num_threads(before)
