"""Cluster-based parallel split learning: one cluster's turn, step for step.

Wu, Li, Qu, Zhou, Shen, Zhuang, Li, Shi: Split Learning over Wireless Networks: Parallel Design
and Resource Management, IEEE JSAC 2023. First parallel, then sequential: the devices of a cluster
train in parallel; the coordinator gives the clusters of a round their turns one after another.
Nothing here knows how a cluster is reached.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.errors import EdgeError
from runtime.wire.frames import Tensor


class ClusterLostError(EdgeError):
    """Every device of a cluster was lost; its turn is over."""


class StepFailedError(ClusterLostError):
    """The server side cannot compute a step on what a cluster sent; the message says why."""


class SpoiltStepError(ClusterLostError):
    """What some devices sent would spoil the model; their turn is over."""

    def __init__(self, culprits: Mapping[str, str]) -> None:
        """`culprits` is device id to what it did."""
        super().__init__("; ".join(f"{device} {what}" for device, what in culprits.items()))
        self.culprits = culprits


@dataclass(frozen=True)
class Smashed:
    """What one device sends in a local epoch."""

    data: Tensor
    """[sample, *activation_shape]"""
    labels: Tensor
    """[sample, ...]"""


def joined(smashed: Mapping[str, Smashed]) -> tuple[NDArray[np.float32], Tensor]:
    """Join smashed data and labels in device-id order."""
    data = np.concatenate([smashed[device].data for device in sorted(smashed)])
    return data, joined_labels(smashed)


def joined_labels(smashed: Mapping[str, Smashed]) -> Tensor:
    """Join labels in device-id order.

    Axes of one value are left out of labels that differ in them: a job says how many numbers the
    label of a sample is, and may leave their shape to the devices.
    """
    labels = [smashed[device].labels for device in sorted(smashed)]
    if len({y.shape[1:] for y in labels}) > 1:
        labels = [y.reshape(len(y), *(size for size in y.shape[1:] if size > 1)) for y in labels]
    return np.concatenate(labels)


@dataclass(frozen=True)
class ServerStep:
    """What one local epoch gives on the server."""

    loss: float
    """Mean over all samples of the cluster."""
    gradients: Mapping[str, Tensor]
    """Of that loss with respect to each device's smashed data; empty where nothing learns."""
    aggregated: Tensor | None = None
    """That of the first samples of every device at once, which `gradients` are then without."""


@dataclass(frozen=True)
class Collected:
    """The device-side models of a cluster after its local epochs."""

    weights: Mapping[str, Sequence[Tensor]]
    losses: Sequence[float] = ()
    """Where the loss was computed on the devices: one mean a device."""


class Cluster(Protocol):
    """The devices that train in parallel, however they are reached."""

    @property
    def sample_counts(self) -> Mapping[str, int]:
        """|D_k| of each device."""
        ...

    async def load(self, device_side: Sequence[Tensor]) -> None:
        """Distribute the device-side model to every device."""
        ...

    async def forward(self) -> Mapping[str, Smashed]:
        """Smashed data of every device, in device-id order."""
        ...

    async def backward(self, gradients: Mapping[str, Tensor], aggregated: Tensor | None) -> None:
        """Return to each device its gradient, and to all what is aggregated, if anything is."""
        ...

    async def weights(self) -> Collected:
        """The device-side models after the last local epoch."""
        ...


class Edge(Protocol):
    """The server during one cluster's turn."""

    async def device_side(self) -> Sequence[Tensor]:
        """The device-side model."""
        ...

    async def step(self, smashed: Mapping[str, Smashed]) -> ServerStep:
        """Forward, loss over the cluster, backward, update of the server-side model."""
        ...

    async def aggregate(
        self, weights: Mapping[str, Sequence[Tensor]], sample_counts: Mapping[str, int]
    ) -> None:
        """Average the device-side models, or as the job says, and take over what comes of it."""
        ...


async def train_cluster(cluster: Cluster, edge: Edge, *, local_epochs: int) -> list[float]:
    """One cluster's turn; the loss of each local epoch."""
    await cluster.load(await edge.device_side())
    losses = []
    for _ in range(local_epochs):
        smashed = await cluster.forward()
        step = await edge.step(smashed)
        await cluster.backward(step.gradients, step.aggregated)
        losses.append(step.loss)
    collected = await cluster.weights()
    await edge.aggregate(collected.weights, cluster.sample_counts)
    return losses


async def train_locally(cluster: Cluster, edge: Edge) -> list[float]:
    """Federated averaging's turn: whole network and loss on the devices; each device's loss."""
    await cluster.load(await edge.device_side())
    collected = await cluster.weights()
    await edge.aggregate(collected.weights, cluster.sample_counts)
    return list(collected.losses)
