"""A cluster whose devices are in this process, and the bytes it would send over a bus."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from edge_coordinator.training.algorithm import Collected, ServerStep, Smashed
from edge_coordinator.training.edge_model import Turn
from runtime.datasets.shard import Shard
from runtime.errors import DivergedError, SettingsError
from runtime.local_training import check_finite, train_locally
from runtime.models.device_side import DeviceNetwork, DeviceSide
from runtime.wire.codecs.turn import TurnCoder, together
from runtime.wire.frames import CHUNK_HEADER, FrameKind, StepId, Tensor, body_bytes, specs_of


class Traffic:
    """Bytes of frames with all their headers, counted as the coordinator of a real run counts.

    A device-side model that a cluster is given is one message, however many devices hear it.
    """

    def __init__(self, *, chunk_bytes: int) -> None:
        self._chunk_bytes = chunk_bytes
        self.up_bytes = 0
        self.down_bytes = 0

    def send_up(self, tensors: Sequence[Tensor]) -> None:
        """Count a frame from a device."""
        self.up_bytes += self._frame_bytes(tensors)

    def send_down(self, tensors: Sequence[Tensor]) -> None:
        """Count a frame from the coordinator."""
        self.down_bytes += self._frame_bytes(tensors)

    def _frame_bytes(self, tensors: Sequence[Tensor]) -> int:
        body = body_bytes(specs_of(tensors))
        num_chunks = max(1, math.ceil(body / self._chunk_bytes))
        return body + num_chunks * CHUNK_HEADER.size


@dataclass(frozen=True)
class TurnTask:
    """What a cluster's devices are asked to take part in."""

    first: StepId
    """Its first local epoch."""
    cut: int
    local_epochs: int
    learning_rate: float
    loss_on_device: bool
    """Whether the devices train the whole network by themselves (federated averaging)."""
    coder: TurnCoder

    def step(self, epoch: int) -> StepId:
        """Name one of its local epochs."""
        return StepId(self.first.run, self.first.round, self.first.cluster, epoch)


class InProcessCluster:
    """The devices of a cluster, one after another in this thread.

    A device's network holds nothing that outlives a turn, so the devices of the next cluster use
    the same ones. Nothing is awaited: `async` is the algorithm's, not ours.
    """

    def __init__(
        self,
        shards: Mapping[str, Shard],
        networks: Sequence[DeviceNetwork],
        task: TurnTask,
        traffic: Traffic,
    ) -> None:
        self._shards = {device: shards[device] for device in sorted(shards)}
        self._sides: dict[str, DeviceSide] = {
            device: network.open(task.cut)
            for device, network in zip(self._shards, networks, strict=False)
        }
        self._task = task
        self._traffic = traffic
        self._coder = task.coder
        self._epoch = 0
        self._given: Sequence[Tensor] = ()

    @property
    def sample_counts(self) -> Mapping[str, int]:
        """|D_k| of each device."""
        return {device: len(shard.kept) for device, shard in self._shards.items()}

    async def load(self, device_side: Sequence[Tensor]) -> None:
        """Give every device the model: one message for all."""
        self._given = device_side
        sent = self._coder.encode(
            FrameKind.MODEL, device_side, device=together(self._shards), epoch=0
        )
        self._traffic.send_down(sent)
        self._received = self._decoded(FrameKind.MODEL, sent, device_side)
        for side in self._sides.values():
            side.load(self._received)

    async def forward(self) -> Mapping[str, Smashed]:
        """Smashed data of every device, in device-id order."""
        return {device: self._forward(device) for device in self._shards}

    async def backward(self, gradients: Mapping[str, Tensor]) -> None:
        """Return to each device its gradient; where nothing learns, an empty frame."""
        for device, side in self._sides.items():
            gradient = gradients.get(device)
            plain = () if gradient is None else (gradient,)
            sent = self._coder.encode(FrameKind.GRADIENT, plain, device=device, epoch=self._epoch)
            self._traffic.send_down(sent)
            for numbers in self._decoded(FrameKind.GRADIENT, sent, plain):
                side.backward(
                    numbers.astype(np.float32, copy=False),
                    learning_rate=self._task.learning_rate,
                )
        self._epoch += 1

    async def weights(self) -> Collected:
        """The device-side models after the last local epoch."""
        if self._task.loss_on_device:
            return self._trained_locally()
        weights = {}
        for device, side in self._sides.items():
            tensors = side.tensors()
            with _naming(device, self._task.step(0).round):
                check_finite("weights", tensors)
            weights[device] = self._sent_up(device, tensors)
        return Collected(weights)

    def _forward(self, device: str) -> Smashed:
        shard, step = self._shards[device], self._task.step(self._epoch)
        x, y = shard.draw(step)
        smashed = self._sides[device].forward(x, dropout_key=shard.dropout_key(step))
        with _naming(device, step.round):
            check_finite("smashed data", [smashed])
        sent = self._coder.encode(FrameKind.SMASHED, (smashed, y), device=device, epoch=self._epoch)
        self._traffic.send_up(sent)
        return Smashed(*self._decoded(FrameKind.SMASHED, sent, (smashed, y)))

    def _sent_up(self, device: str, weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """Send a device's model; what it is on the server."""
        sent = self._coder.encode(
            FrameKind.WEIGHTS,
            weights,
            device=device,
            epoch=self._task.local_epochs - 1,
            before=self._received,
        )
        self._traffic.send_up(sent)
        return self._decoded(FrameKind.WEIGHTS, sent, weights)

    def _decoded(
        self, kind: FrameKind, sent: Sequence[Tensor], plain: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """Read a frame of such tensors where it arrives."""
        specs = specs_of(plain)
        parts = self._coder.unpacked(kind, sent, specs)
        return self._coder.decode(kind, parts, specs, before=self._given)

    def _trained_locally(self) -> Collected:
        weights, losses = {}, []
        last = self._task.step(self._task.local_epochs - 1)
        for device, side in self._sides.items():
            with _naming(device, last.round):
                trained = train_locally(
                    side,
                    self._shards[device],
                    last,
                    local_epochs=self._task.local_epochs,
                    learning_rate=self._task.learning_rate,
                )
            *tensors, loss = self._sent_up(device, trained)
            weights[device] = tensors
            losses.append(float(loss))
        return Collected(weights, losses)


@contextmanager
def _naming(device: str, round_: int) -> Iterator[None]:
    """Say whose mistake it was, and when."""
    try:
        yield
    except (SettingsError, DivergedError) as error:
        raise type(error)(f"{device} in round {round_}: {error}") from error


class InlineEdge:
    """One turn of the edge model in this thread; keeps the contract of `algorithm.Edge`."""

    def __init__(self, turn: Turn, *, num_threads: int) -> None:
        self._turn = turn
        self._num_threads = num_threads

    async def device_side(self) -> Sequence[Tensor]:
        """The device-side model."""
        return self._turn.device_side()

    async def step(self, smashed: Mapping[str, Smashed]) -> ServerStep:
        """Forward, loss, backward, update of the server-side model.

        With as many threads as a real run's server has: another number sums in another order.
        """
        before = torch.get_num_threads()
        if before == self._num_threads:
            return self._turn.step(smashed)
        torch.set_num_threads(self._num_threads)
        try:
            return self._turn.step(smashed)
        finally:
            torch.set_num_threads(before)

    async def aggregate(
        self, weights: Mapping[str, Sequence[Tensor]], sample_counts: Mapping[str, int]
    ) -> None:
        """Take over what becomes of the devices' models."""
        self._turn.aggregate(weights, sample_counts)
