"""The edge model off the event loop: one thread does all its arithmetic."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

import torch

from edge_coordinator.training.algorithm import ServerStep, Smashed
from edge_coordinator.training.overlapped_turn import MicroBatch
from edge_coordinator.training.turn import Turn
from runtime.wire.frames import Tensor

Result = TypeVar("Result")


class EdgeWorker:
    """A thread for the server's arithmetic, so that the bus is served meanwhile."""

    def __init__(self, *, num_threads: int) -> None:
        self._pool = ThreadPoolExecutor(1, "edge", torch.set_num_threads, (num_threads,))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    async def do(self, work: Callable[[], Result]) -> Result:
        """Run `work` in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def edge(self, turn: Turn) -> "OffLoopEdge":
        """Give a turn as the algorithm wants it."""
        return OffLoopEdge(self, turn)


class OffLoopEdge:
    """One turn of the edge model; keeps the contract of `algorithm.Edge`."""

    def __init__(self, worker: EdgeWorker, turn: Turn) -> None:
        self._worker = worker
        self._turn = turn
        self.steps_s: list[float] = []
        """Seconds of each local epoch's step."""
        self.worked: list[tuple[int, float, float]] = []
        """Local epoch of each piece of a step; when it began and ended, by the monotonic clock."""
        self._step_s = 0.0

    async def device_side(self) -> Sequence[Tensor]:
        """The device-side model."""
        return await self._worker.do(self._turn.device_side)

    async def step(self, smashed: Mapping[str, Smashed]) -> ServerStep:
        """Forward, loss, backward, update of the server-side model."""
        start_s = time.monotonic()
        step = await self._worker.do(lambda: self._turn.step(smashed))
        self.steps_s.append(self._note_work(start_s))
        return step

    async def begin(self, batch_sizes: Mapping[str, int]) -> None:
        """Begin a step that comes in micro-batches."""
        await self._worker.do(lambda: self._turn.begin(batch_sizes))
        self._step_s = 0.0

    async def add(self, micro_batch: MicroBatch) -> Tensor | None:
        """Forward, loss and backward of one micro-batch; the device's gradient."""
        start_s = time.monotonic()
        device, rows = micro_batch.device, micro_batch.rows
        gradient = await self._worker.do(lambda: self._turn.add(device, rows, micro_batch.smashed))
        self._step_s += self._note_work(start_s)
        return gradient

    async def update(self, devices: Collection[str]) -> float:
        """Update the server-side model by all that these devices sent; the mean loss."""
        start_s = time.monotonic()
        loss = await self._worker.do(lambda: self._turn.update(devices))
        self.steps_s.append(self._step_s + self._note_work(start_s))
        return loss

    def _note_work(self, start_s: float) -> float:
        """Note a piece that ends now; its seconds."""
        end_s = time.monotonic()
        self.worked.append((len(self.steps_s), start_s, end_s))
        return end_s - start_s

    async def aggregate(
        self, weights: Mapping[str, Sequence[Tensor]], sample_counts: Mapping[str, int]
    ) -> None:
        """Take over what becomes of the devices' models."""
        await self._worker.do(lambda: self._turn.aggregate(weights, sample_counts))
