"""A cluster's turn within bounds: who sends what is out of them falls out of it, by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from edge_coordinator.rounds.remote_cluster import RemoteCluster
from edge_coordinator.rounds.server_thread import EdgeWorker, OffLoopEdge
from edge_coordinator.training.algorithm import Collected, ServerStep, Smashed, SpoiltStepError
from edge_coordinator.training.bounds import Bounds, Sent, length_of, sample_size
from edge_coordinator.training.cuts import DeviceParts
from runtime.wire.frames import Tensor

_SLOTS = {"momentum_buffer", "step", "exp_avg", "exp_avg_sq"}
_NEVER_NEGATIVE = {"running_var", "step", "exp_avg_sq"}


@dataclass
class TurnBounds:
    """The bounds of a run as they hold in one turn, and who was caught in it."""

    bounds: Bounds
    worker: EdgeWorker
    """Large tensors take a while to go through."""
    parts: Sequence[str]
    """What each tensor of the device-side model is, as `Side.parts` says."""
    own: DeviceParts
    """Which of these are a device's."""
    learning_rate: float
    """Of the devices: updates grow with it."""
    batch_shares: Mapping[str, float]
    """How large mini-batches are beside equal ones, where not all are: gradients grow with it."""
    caught: dict[str, str] = field(default_factory=dict)

    async def check(self, check: Callable[[], dict[str, str]]) -> dict[str, str]:
        """Find who is out of bounds, and why."""
        return self.noted(await self.worker.do(check))

    def noted(self, caught: dict[str, str]) -> dict[str, str]:
        """Take note of who was out of bounds."""
        self.caught |= caught
        return caught

    def smashed(self, smashed: Mapping[str, Smashed]) -> dict[str, str]:
        """Check smashed data, and labels that are no classes."""
        sizes = {device: sample_size(each.data) for device, each in smashed.items()}
        labels = {
            device: sample_size(each.labels)
            for device, each in smashed.items()
            if each.labels.dtype.kind == "f"
        }
        return self.bounds.check(Sent.LABELS, labels) | self.bounds.check(Sent.SMASHED, sizes)

    def gradients(self, gradients: Mapping[str, Tensor]) -> dict[str, str]:
        """Check the gradients that devices' samples gave; what is aggregated is of nobody alone."""
        sizes = {
            device: length_of([each]) / self.batch_shares.get(device, 1.0)
            for device, each in gradients.items()
            if len(each)
        }
        return self.bounds.check(Sent.GRADIENT, sizes)

    def models(
        self, models: Mapping[str, Sequence[Tensor]], before: Sequence[Tensor]
    ) -> dict[str, str]:
        """Check device-side models, beside the one that the devices were given."""
        sizes: dict[Sent, dict[str, float]] = {}
        caught = {}
        for device, model in models.items():
            parts = self.own.of(device, self.parts)
            if reason := _why_impossible(model, parts):
                caught[device] = reason
                continue
            share = self.batch_shares.get(device, 1.0)
            given = self.own.of(device, before)
            for sent, size in self._update_sizes(model, given, parts).items():
                by_share = 1.0 if sent is Sent.STATISTICS else share
                sizes.setdefault(sent, {})[device] = size / by_share
        for sent, each in sizes.items():
            caught = self.bounds.check(sent, each) | caught  # The first reason is the one told.
        return caught

    def _update_sizes(
        self, model: Sequence[Tensor], before: Sequence[Tensor], parts: Sequence[str]
    ) -> Mapping[Sent, float]:
        updates: dict[Sent, list[Tensor]] = {}
        for part, now, then in zip(parts, model, before, strict=True):
            if now.dtype.kind == "f":
                with np.errstate(over="ignore"):
                    update = np.subtract(now, then, dtype=np.float32)
                updates.setdefault(_sent_as(part), []).append(update)
        sizes = {sent: length_of(each) for sent, each in updates.items()}
        if Sent.WEIGHTS in sizes:
            sizes[Sent.WEIGHTS] /= self.learning_rate or 1.0
        return sizes


def _why_impossible(model: Sequence[Tensor], parts: Sequence[str]) -> str:
    for part, tensor in zip(parts, model, strict=True):
        if part in _NEVER_NEGATIVE and tensor.size and float(np.min(tensor)) < 0:
            return f"sent values of {part} below 0: {float(np.min(tensor)):.3g}"
    return ""


def _sent_as(part: str) -> Sent:
    if part == "parameter":
        return Sent.WEIGHTS
    return Sent.OPTIMIZER if part in _SLOTS else Sent.STATISTICS


class BoundedCluster:
    """A remote cluster whose answers are within bounds; keeps the contract of `Cluster`."""

    def __init__(self, cluster: RemoteCluster, turn: TurnBounds) -> None:
        self._cluster = cluster
        self._turn = turn
        self._before: Sequence[Tensor] = ()

    @property
    def sample_counts(self) -> Mapping[str, int]:
        """|D_k| of each device."""
        return self._cluster.sample_counts

    async def load(self, device_side: Sequence[Tensor]) -> None:
        """Distribute the device-side model."""
        self._before = device_side
        await self._cluster.load(device_side)

    async def forward(self) -> Mapping[str, Smashed]:
        """Smashed data of every device that is within bounds."""
        smashed = await self._cluster.forward()
        caught = await self._turn.check(partial(self._turn.smashed, smashed))
        self._cluster.drop(caught)
        return {device: each for device, each in smashed.items() if device not in caught}

    async def backward(self, gradients: Mapping[str, Tensor], aggregated: Tensor | None) -> None:
        """Return to each device its gradient, and to all what is aggregated."""
        await self._cluster.backward(gradients, aggregated)

    async def weights(self) -> Collected:
        """The device-side models that are within bounds."""
        collected = await self._cluster.weights()
        models = collected.weights
        caught = await self._turn.check(partial(self._turn.models, models, self._before))
        self._cluster.drop(caught)
        kept = {device: model for device, model in models.items() if device not in caught}
        losses = [
            loss
            for device, loss in zip(models, collected.losses, strict=False)
            if device not in caught
        ]
        return Collected(kept, losses)


class BoundedEdge:
    """The server's side of a turn; a step that no honest device gives is not gone on from."""

    def __init__(self, edge: OffLoopEdge, turn: TurnBounds) -> None:
        self._edge = edge
        self._turn = turn

    async def device_side(self) -> Sequence[Tensor]:
        """The device-side model."""
        return await self._edge.device_side()

    async def step(self, smashed: Mapping[str, Smashed]) -> ServerStep:
        """Forward, loss, backward and update; SpoiltStepError if a gradient is out of bounds."""
        step = await self._edge.step(smashed)
        caught = await self._turn.check(partial(self._turn.gradients, step.gradients))
        if caught:
            raise SpoiltStepError(caught)
        return step

    async def aggregate(
        self, weights: Mapping[str, Sequence[Tensor]], sample_counts: Mapping[str, int]
    ) -> None:
        """Take over what becomes of the devices' models."""
        await self._edge.aggregate(weights, sample_counts)
