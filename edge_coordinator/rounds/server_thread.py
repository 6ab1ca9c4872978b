"""The edge model off the event loop: one thread does all its arithmetic."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

import torch

from edge_coordinator.training.algorithm import ServerStep, Smashed
from edge_coordinator.training.edge_model import Turn
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

    async def device_side(self) -> Sequence[Tensor]:
        """The device-side model."""
        return await self._worker.do(self._turn.device_side)

    async def step(self, smashed: Mapping[str, Smashed]) -> ServerStep:
        """Forward, loss, backward, update of the server-side model."""
        start_s = time.monotonic()
        step = await self._worker.do(lambda: self._turn.step(smashed))
        self.steps_s.append(time.monotonic() - start_s)
        return step

    async def aggregate(
        self, weights: Mapping[str, Sequence[Tensor]], sample_counts: Mapping[str, int]
    ) -> None:
        """Take over what becomes of the devices' models."""
        await self._worker.do(lambda: self._turn.aggregate(weights, sample_counts))
