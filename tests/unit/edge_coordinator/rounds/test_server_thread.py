"""The thread that computes: what becomes of its work where a program is told to end."""

import asyncio
import threading

import pytest

from edge_coordinator.rounds.server_thread import EdgeWorker


class Work:
    """Goes on until it is let go."""

    def __init__(self) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self.ended_by: BaseException | None = None
        self.is_done = False

    def __call__(self) -> None:
        """Compute on and on, in Python."""
        self.has_begun.set()
        try:
            while not self.may_end.is_set():
                pass
            self.is_done = True
        except BaseException as error:
            self.ended_by = error
            raise


async def _until_begun(work: Work) -> None:
    await asyncio.to_thread(work.has_begun.wait)


async def test_work_that_nobody_waits_for_any_more_ends_where_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Work()

    async def train() -> None:
        with EdgeWorker(num_threads=1) as worker:
            await worker.do(work)

    training = asyncio.create_task(train())
    await _until_begun(work)
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert isinstance(work.ended_by, asyncio.CancelledError)
    assert not caplog.records  # The thread itself ended as threads do.
    assert "edge_0" not in {thread.name for thread in threading.enumerate()}


async def test_work_that_swallows_its_end_is_told_again() -> None:
    swallowed, work = threading.Event(), Work()

    def stubborn() -> None:
        try:
            work()
        except asyncio.CancelledError:
            swallowed.set()
        while True:
            pass

    async def train() -> None:
        with EdgeWorker(num_threads=1) as worker:
            await worker.do(stubborn)

    training = asyncio.create_task(train())
    await _until_begun(work)
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert swallowed.is_set()


async def test_files_are_written_whole_and_work_that_is_over_is_not_ended() -> None:
    work = Work()

    async def train() -> None:
        with EdgeWorker(num_threads=1) as worker:
            assert await worker.do(lambda: 7) == 7
            await worker.do_whole(work)

    training = asyncio.create_task(train())
    await _until_begun(work)
    threading.Timer(0.5, work.may_end.set).start()  # The block blocks the loop.
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert (work.is_done, work.ended_by) == (True, None)
