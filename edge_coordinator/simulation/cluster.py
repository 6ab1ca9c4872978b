"""A cluster whose devices are in this process."""

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from edge_coordinator.simulation.traffic import Traffic
from edge_coordinator.training.algorithm import Collected, ServerStep, Smashed
from edge_coordinator.training.overlapped_turn import MicroBatch
from edge_coordinator.training.turn import Turn
from runtime.datasets.shard import Shard
from runtime.errors import DivergedError, EdgeError, SettingsError
from runtime.local_training import check_finite, train_locally
from runtime.models.device_side import DeviceNetwork, DeviceSide
from runtime.wire.codecs.turn import TurnCoder, together, whole_gradient
from runtime.wire.commands import Clip
from runtime.wire.frames import FrameKind, StepId, Tensor, specs_of
from runtime.wire.micro_batches import Rows, parted

Result = TypeVar("Result")


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
    clips: Mapping[str, Clip | None]
    """Of each device."""
    micro_batches: int = 1
    is_shared_out: bool = False
    """Whether each device has its part of the cluster's samples; its shard says how many."""

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
        frozen: Sequence[Tensor],
    ) -> None:
        """`frozen` is what does not learn below the cut."""
        self._shards = {device: shards[device] for device in sorted(shards)}
        self._sides: dict[str, DeviceSide] = {
            device: network.open(task.cut)
            for device, network in zip(self._shards, networks, strict=False)
        }
        for side in self._sides.values() if frozen else ():
            side.load_frozen(frozen)
        self._task = task
        self._traffic = traffic
        self._coder = task.coder
        self._epoch = 0
        self._given: Sequence[Tensor] = ()
        self._batches: dict[str, tuple[NDArray[np.float32], Tensor]] = {}
        """Of this local epoch, where it goes in micro-batches."""

    @property
    def batch_sizes(self) -> Mapping[str, int]:
        """Samples that each device sends in a local epoch."""
        return {device: len(self._batch(device)[1]) for device in self._shards}

    @property
    def sample_counts(self) -> Mapping[str, int]:
        """|D_k| of each device; one where their samples of a step were shared out."""
        is_shared = self._task.is_shared_out
        return {d: 1 if is_shared else len(shard.kept) for d, shard in self._shards.items()}

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

    async def micro_batches(self) -> AsyncIterator[MicroBatch]:
        """Those of the next local epoch: each device's first, then each one's next."""
        parts = {d: parted(n, self._task.micro_batches) for d, n in self.batch_sizes.items()}
        for index in range(max(map(len, parts.values()))):
            for device, rows in parts.items():
                if index < len(rows):
                    smashed = self._forward(device, rows[index], index)
                    yield MicroBatch(device, index, rows[index], smashed)
        self._epoch += 1
        self._batches.clear()

    async def give_back(self, micro_batch: MicroBatch, gradient: Tensor | None) -> None:
        """Return its gradient to the device; where nothing learns, an empty frame."""
        self._give_back(micro_batch.device, gradient, micro_batch.rows, micro_batch.index)

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
