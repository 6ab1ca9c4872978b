"""A cluster's turn in micro-batches: nobody waits for the others but where the algorithm says so.

The server computes each micro-batch forward and backward as it comes, and gives its gradient back
at once; it updates when all of a local epoch have come. A device computes, sends and receives at
the same time, and begins its next local epoch as soon as it has updated. What is aggregated over
the devices is in the first micro-batches, which wait for the same ones of all. The mathematics are
those of `algorithm.train_cluster`, where the loss is a mean over samples and no layer looks at a
whole mini-batch.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_coordinator.training.algorithm import Collected, Smashed
from runtime.wire.frames import Tensor
from runtime.wire.micro_batches import Rows


@dataclass(frozen=True)
class MicroBatch:
    """What one device sends of its mini-batch at a time."""

    device: str
    index: int
    rows: Rows
    smashed: Smashed


@dataclass(frozen=True)
class AggregatedMicroBatch:
    """The same samples of all devices that are left, which are given one gradient."""

    index: int
    parts: Mapping[str, MicroBatch]
    """By device."""

    @property
    def of_devices(self) -> dict[str, tuple[Rows, Smashed]]:
        """Which rows of its mini-batch each device sent, and what they are."""
        return {device: (each.rows, each.smashed) for device, each in self.parts.items()}


class OverlappingCluster(Protocol):
    """The devices that train in parallel; see `algorithm.Cluster`."""

    @property
    def sample_counts(self) -> Mapping[str, int]:
        """|D_k| of each device that is left."""
        ...

    @property
    def batch_sizes(self) -> Mapping[str, int]:
        """Samples that each device that is left sends in a local epoch."""
        ...

    async def load(self, device_side: Sequence[Tensor]) -> None:
        """Distribute the device-side model to every device."""
        ...

    def micro_batches(self) -> AsyncIterator[MicroBatch | AggregatedMicroBatch]:
        """Those of the next local epoch as they come, until all have that are to come."""
        ...

    async def give_back(self, micro_batch: MicroBatch, gradient: Tensor | None) -> None:
        """Return its gradient to the device, without waiting until it is there."""
        ...

    async def give_to_all(self, batch: AggregatedMicroBatch, gradient: Tensor | None) -> None:
        """Return one gradient to all devices, without waiting until it is there."""
        ...

    async def weights(self) -> Collected:
        """The device-side models after the last local epoch."""
        ...


class AccumulatingEdge(Protocol):
    """The server during one cluster's turn; see `algorithm.Edge`."""

    async def device_side(self) -> Sequence[Tensor]:
        """The device-side model."""
        ...

    async def begin(self, batch_sizes: Mapping[str, int]) -> None:
        """Begin a local epoch's step, of so many samples of each device."""
        ...

    async def add(self, micro_batch: MicroBatch) -> Tensor | None:
        """Forward, loss and backward of one micro-batch; the device's gradient."""
        ...

    async def add_together(self, batch: AggregatedMicroBatch) -> Tensor | None:
        """Forward and loss of all its samples, and backward once; the gradient of all devices."""
        ...

    async def update(self, devices: Collection[str]) -> float:
        """Update the server-side model by all that these devices sent; the mean loss."""
        ...

    async def aggregate(
        self, weights: Mapping[str, Sequence[Tensor]], sample_counts: Mapping[str, int]
    ) -> None:
        """Average the device-side models, or as the job says, and take over what comes of it."""
        ...


async def train_overlapped(
    cluster: OverlappingCluster, edge: AccumulatingEdge, *, local_epochs: int
) -> list[float]:
    """One cluster's turn; the loss of each local epoch."""
    await cluster.load(await edge.device_side())
    losses = []
    for _ in range(local_epochs):
        await edge.begin(cluster.batch_sizes)
        async for micro_batch in cluster.micro_batches():
            if isinstance(micro_batch, AggregatedMicroBatch):
                await cluster.give_to_all(micro_batch, await edge.add_together(micro_batch))
            else:
                await cluster.give_back(micro_batch, await edge.add(micro_batch))
        losses.append(await edge.update(cluster.sample_counts.keys()))
    collected = await cluster.weights()
    await edge.aggregate(collected.weights, cluster.sample_counts)
    return losses
