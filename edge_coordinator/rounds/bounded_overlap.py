"""A turn in micro-batches within bounds; see `bounded_turn`."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from edge_coordinator.rounds.bounded_turn import BoundedCluster, BoundedEdge, TurnBounds
from edge_coordinator.rounds.overlapped_cluster import OverlappedCluster
from edge_coordinator.rounds.server_thread import OffLoopEdge
from edge_coordinator.training.algorithm import SpoiltStepError
from edge_coordinator.training.overlapped_turn import AggregatedMicroBatch, MicroBatch
from runtime.wire.frames import Tensor


class BoundedOverlappedCluster(BoundedCluster):
    """An overlapped cluster whose answers are within bounds."""

    def __init__(self, cluster: OverlappedCluster, turn: TurnBounds) -> None:
        super().__init__(cluster, turn)
        self._overlapped = cluster

    @property
    def batch_sizes(self) -> Mapping[str, int]:
        """Samples that each device that is left sends in a local epoch."""
        return self._overlapped.batch_sizes

    async def micro_batches(self) -> AsyncIterator[MicroBatch | AggregatedMicroBatch]:
        """Those of the next local epoch that are within bounds, as they come."""
        async for each in self._overlapped.micro_batches():
            parts = each.parts if isinstance(each, AggregatedMicroBatch) else {each.device: each}
            own = {device: part.smashed for device, part in parts.items()}
            caught = await self._turn.check(partial(self._turn.smashed, own))
            self._overlapped.drop(caught)
            kept = {device: part for device, part in parts.items() if device not in caught}
            if kept and isinstance(each, AggregatedMicroBatch):
                yield replace(each, parts=kept)
            elif kept:
                yield each

    async def give_back(self, micro_batch: MicroBatch, gradient: Tensor | None) -> None:
        """Return its gradient to the device."""
        await self._overlapped.give_back(micro_batch, gradient)

    async def give_to_all(self, batch: AggregatedMicroBatch, gradient: Tensor | None) -> None:
        """Return one gradient to all devices."""
        await self._overlapped.give_to_all(batch, gradient)


class BoundedAccumulatingEdge(BoundedEdge):
    """The server's side; a micro-batch that no honest device gives is not gone on from."""

    def __init__(self, edge: OffLoopEdge, turn: TurnBounds) -> None:
        super().__init__(edge, turn)
        self._accumulating = edge

    async def begin(self, batch_sizes: Mapping[str, int]) -> None:
        """Begin a local epoch's step."""
        await self._accumulating.begin(batch_sizes)

    async def add(self, micro_batch: MicroBatch) -> Tensor | None:
        """Forward, loss and backward; SpoiltStepError if the gradient is out of bounds."""

        def check(gradient: Tensor) -> None:
            caught = self._turn.noted(self._turn.gradients({micro_batch.device: gradient}))
            if caught:
                raise SpoiltStepError(caught)

        return await self._accumulating.add(micro_batch, check=check)

    async def add_together(self, batch: AggregatedMicroBatch) -> Tensor | None:
        """Forward, loss and backward; what is aggregated is of nobody alone."""
        return await self._accumulating.add_together(batch)

    async def update(self, devices: Collection[str]) -> float:
        """Update the server-side model."""
        return await self._accumulating.update(devices)

    async def device_side(self) -> Sequence[Tensor]:
        """The device-side model."""
        return await self._accumulating.device_side()
