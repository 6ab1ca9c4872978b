"""A cluster whose devices are in this process."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_coordinator.simulation.traffic import Traffic
from edge_coordinator.training.algorithm import Collected, Smashed
from edge_coordinator.training.cuts import DeviceParts
from edge_coordinator.training.overlapped_turn import AggregatedMicroBatch, MicroBatch
from runtime.datasets.shard import Shard
from runtime.errors import DivergedError, EdgeError, SettingsError
from runtime.local_training import check_finite, train_locally
from runtime.models.device_side import DeviceNetwork, DeviceSide
from runtime.wire.codecs.turn import TurnCoder, together, whole_gradient
from runtime.wire.commands import Clip
from runtime.wire.frames import FrameKind, StepId, Tensor, specs_of
from runtime.wire.micro_batches import FirstSamples, Rows, parted

Result = TypeVar("Result")


@dataclass(frozen=True)
class TurnTask:
    """What a cluster's devices are asked to take part in."""

    first: StepId
    """Its first local epoch."""
    cuts: Mapping[str, int]
    """Of each device."""
    parts: DeviceParts
    """Of the cluster's device-side model, which are whose."""
    local_epochs: int
    learning_rate: float
    loss_on_device: bool
    """Whether the devices train the whole network by themselves (federated averaging)."""
    coder: TurnCoder
    clips: Mapping[str, Clip | None]
    """Of each device."""
    sample_counts: Mapping[str, int]
    """What the |D_k| of each device counts as when the models are averaged."""
    micro_batches: int = 1
    aggregated: FirstSamples | None = None
    """What is in micro-batches of its own, for it is aggregated over the devices."""

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
        *,
        frozen: Mapping[int, Sequence[Tensor]],
    ) -> None:
        """`frozen` is what does not learn below each cut."""
        self._shards = {device: shards[device] for device in sorted(shards)}
        self._sides: dict[str, DeviceSide] = {
            device: network.open(task.cuts[device])
            for device, network in zip(self._shards, networks, strict=False)
        }
        for device, side in self._sides.items():
            if own := frozen[task.cuts[device]]:
                side.load_frozen(own)
        self._task = task
        self._traffic = traffic
        self._coder = task.coder
        self._epoch = 0
        self._given: dict[str, Sequence[Tensor]] = {}
        """By device, the model that it is sent."""
        self._received: dict[str, Sequence[Tensor]] = {}
        """What a codec leaves of that."""
        self._batches: dict[str, tuple[NDArray[np.float32], Tensor]] = {}
        """Of this local epoch, where it goes in micro-batches."""

    @property
    def batch_sizes(self) -> Mapping[str, int]:
        """Samples that each device sends in a local epoch."""
        return {device: len(self._batch(device)[1]) for device in self._shards}

    @property
    def sample_counts(self) -> Mapping[str, int]:
        """|D_k| of each device; one where their samples of a step were shared out."""
        return self._task.sample_counts

    async def load(self, device_side: Sequence[Tensor]) -> None:
        """Give every device the model: one message for all, where all have the same."""
        for group in self._task.parts.groups(self._shards):
            own, name = self._task.parts.of(group[0], device_side), together(group)
            sent = self._coder.encode(FrameKind.MODEL, own, device=name, epoch=0)
            self._traffic.send_down(sent)
            received = self._decoded(FrameKind.MODEL, sent, own)
            for device in group:
                self._given[device], self._received[device] = own, received
                self._sides[device].load(received)

    async def forward(self) -> Mapping[str, Smashed]:
        """Smashed data of every device, in device-id order."""
        return {device: self._forward(device) for device in self._shards}

    async def backward(self, gradients: Mapping[str, Tensor], aggregated: Tensor | None) -> None:
        """Return to each device its gradient; where nothing learns, an empty frame."""
        if aggregated is None:
            for device in self._sides:
                self._give_back(device, gradients.get(device), None, 0)
        else:
            for_all = self._sent_down(aggregated, together(self._sides), 0)
            for device in self._sides:
                rest = gradients[device]
                own = self._sent_down(rest, device, 1) if len(rest) else ()
                self._go_back(device, (*for_all, *own), None)
        self._epoch += 1

    async def micro_batches(self) -> AsyncIterator[MicroBatch | AggregatedMicroBatch]:
        """Those of the next local epoch: each device's first, then each one's next."""
        task, first = self._task, self._task.aggregated
        parts = {d: parted(n, task.micro_batches, first) for d, n in self.batch_sizes.items()}
        for index in range(max(map(len, parts.values()))):
            each = {
                d: MicroBatch(d, index, rows[index], self._forward(d, rows[index], index))
                for d, rows in parts.items()
                if index < len(rows)
            }
            if first is not None and index < first.micro_batches:
                yield AggregatedMicroBatch(index, each)
            else:
                for own in each.values():
                    yield own
        self._epoch += 1
        self._batches.clear()

    async def give_back(self, micro_batch: MicroBatch, gradient: Tensor | None) -> None:
        """Return its gradient to the device; where nothing learns, an empty frame."""
        self._give_back(micro_batch.device, gradient, micro_batch.rows, micro_batch.index)

    async def give_to_all(self, batch: AggregatedMicroBatch, gradient: Tensor | None) -> None:
        """Return one gradient to all devices."""
        if gradient is None:
            for each in batch.parts.values():
                await self.give_back(each, None)
            return
        for_all = self._sent_down(gradient, together(self._sides), batch.index)
        for device, each in batch.parts.items():
            self._go_back(device, for_all, each.rows)

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

    def _batch(self, device: str) -> tuple[NDArray[np.float32], Tensor]:
        if device not in self._batches:
            self._batches[device] = self._shards[device].draw(self._task.step(self._epoch))
        return self._batches[device]

    def _give_back(
        self, device: str, gradient: Tensor | None, rows: Rows | None, micro_batch: int
    ) -> None:
        parts = self._sent_down(gradient, device, micro_batch)
        if parts:
            self._go_back(device, parts, rows)

    def _sent_down(
        self, gradient: Tensor | None, device: str, micro_batch: int
    ) -> Sequence[Tensor]:
        """Send a gradient; what it is on the device."""
        plain = () if gradient is None else (gradient,)
        sent = self._coder.encode(
            FrameKind.GRADIENT, plain, device=device, epoch=self._epoch, micro_batch=micro_batch
        )
        self._traffic.send_down(sent, micro_batch=micro_batch)
        return self._decoded(FrameKind.GRADIENT, sent, plain)

    def _go_back(self, device: str, parts: Sequence[Tensor], rows: Rows | None) -> None:
        with _naming(device, self._task.step(0).round):
            self._sides[device].backward(
                whole_gradient(parts),
                learning_rate=self._task.learning_rate,
                clip=self._task.clips[device],
                is_last=rows is None or rows.stop == rows.of,
            )

    def _forward(self, device: str, rows: Rows | None = None, micro_batch: int = 0) -> Smashed:
        shard, step = self._shards[device], self._task.step(self._epoch)
        with _naming(device, step.round):
            x, y = self._batch(device) if rows else shard.draw(step)
            rows = rows or Rows.all(len(x))
            x, y = x[rows.start : rows.stop], y[rows.start : rows.stop]
            side = self._sides[device]
            smashed = side.forward(x, dropout_key=shard.dropout_key(step), rows=rows)
            check_finite("smashed data", [smashed])
        sent = self._coder.encode(
            FrameKind.SMASHED,
            (smashed, y),
            device=device,
            epoch=self._epoch,
            micro_batch=micro_batch,
        )
        self._traffic.send_up(sent, micro_batch=micro_batch)
        return Smashed(*self._decoded(FrameKind.SMASHED, sent, (smashed, y)))

    def _sent_up(self, device: str, weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """Send a device's model; what it is on the server."""
        sent = self._coder.encode(
            FrameKind.WEIGHTS,
            weights,
            device=device,
            epoch=self._task.local_epochs - 1,
            before=self._received[device],
        )
        self._traffic.send_up(sent)
        return self._decoded(FrameKind.WEIGHTS, sent, weights, before=self._given[device])

    def _decoded(
        self,
        kind: FrameKind,
        sent: Sequence[Tensor],
        plain: Sequence[Tensor],
        *,
        before: Sequence[Tensor] = (),
    ) -> Sequence[Tensor]:
        """Read a frame of such tensors where it arrives."""
        specs = specs_of(plain)
        parts = self._coder.unpacked(kind, sent, specs)
        return self._coder.decode(kind, parts, specs, before=before)

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
                    clip=self._task.clips[device],
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
    except EdgeError:
        raise
    except Exception as error:  # The network and the data may be the user's own.
        raise SettingsError(f"{device} in round {round_} cannot train: {error!r:.300}") from error
