"""The edge model off the event loop: one thread does all its arithmetic."""

import asyncio
import ctypes
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self, TypeVar

import torch

from edge_coordinator.training.algorithm import ServerStep, Smashed
from edge_coordinator.training.overlapped_turn import AggregatedMicroBatch, MicroBatch
from edge_coordinator.training.turn import Turn
from runtime.wire.frames import Tensor

Result = TypeVar("Result")

AGAIN_S = 0.2
"""After that, work that was told to end is told again: a destructor may have taken it."""


class EdgeWorker:
    """A thread for the server's arithmetic, so that the bus is served meanwhile.

    If the block ends by an error, or because the program is told to end, so does what the thread
    is at, however long it would take: an export of graphs, a plan, an evaluation.
    """

    def __init__(self, *, num_threads: int) -> None:
        self._pool = ThreadPoolExecutor(1, "edge", torch.set_num_threads, (num_threads,))
        self._work: Future[Any] | None = None
        self._lock = threading.Lock()
        self._thread: int | None = None
        """While it works; changed under the lock alone, so that nothing else is ended."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error_type is not None and self._work is not None:
            while wait([self._work], timeout=AGAIN_S).not_done:
                self._end_work()
        self._pool.shutdown(cancel_futures=True)

    async def do(self, work: Callable[[], Result]) -> Result:
        """Run `work` in the thread."""
        return await self._submitted(lambda: self._run(work))

    async def do_whole(self, work: Callable[[], Result]) -> Result:
        """Run `work` in the thread to its end, whatever ends the block: it writes files."""
        return await self._submitted(work)

    async def _submitted(self, work: Callable[[], Result]) -> Result:
        self._work = future = self._pool.submit(work)
        return await asyncio.wrap_future(future)

    def _run(self, work: Callable[[], Result]) -> Result:
        with self._lock:
            self._thread = threading.get_ident()
        try:
            return work()
        finally:
            with self._lock:
                _raise_in(self._thread, None)
                self._thread = None

    def _end_work(self) -> None:
        with self._lock:
            _raise_in(self._thread, asyncio.CancelledError)

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

    async def add(
        self, micro_batch: MicroBatch, *, check: Callable[[Tensor], None] | None = None
    ) -> Tensor | None:
        """Forward, loss and backward of one micro-batch; the device's gradient.

        `check` looks at it in the same thread: to go there once more would take as long as it.
        """
        start_s = time.monotonic()
        device, rows = micro_batch.device, micro_batch.rows

        def add() -> Tensor | None:
            gradient = self._turn.add(device, rows, micro_batch.smashed)
            if gradient is not None and check is not None:
                check(gradient)
            return gradient

        gradient = await self._worker.do(add)
        self._step_s += self._note_work(start_s)
        return gradient

    async def add_together(self, batch: AggregatedMicroBatch) -> Tensor | None:
        """Forward and loss of the same samples of all devices, and backward once."""
        start_s = time.monotonic()
        gradient = await self._worker.do(lambda: self._turn.add_together(batch.of_devices))
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


def _raise_in(thread: int | None, error: type[BaseException] | None) -> None:
    """Raise an error at the next line of Python that a thread runs; with None, take it back."""
    if thread is not None:
        number, what = ctypes.c_ulong(thread), error and ctypes.py_object(error)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(number, what)
