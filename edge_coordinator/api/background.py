"""Work with an event loop of its own, in a thread of its own.

A notebook has a loop that runs already, and a second cannot run in the same thread.
"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


class Stoppable:
    """Lets one thread end what another one trains."""

    def __init__(self) -> None:
        self._is_stopped = False
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[object]] | None = None

    async def watched(self, training: Coroutine[None, None, object]) -> None:
        """Train until done; CancelledError if it is stopped."""
        task = asyncio.current_task()
        assert task is not None
        self._running = asyncio.get_running_loop(), task
        if self._is_stopped:  # Before it began.
            task.cancel()
        try:
            await training
        finally:
            self._running = None

    def stop(self) -> None:
        """End the training, now or before it begins."""
        self._is_stopped = True
        if self._running is not None:
            loop, task = self._running
            loop.call_soon_threadsafe(task.cancel)


Work = Callable[[Stoppable], Result]


def wait_for(work: Work[Result]) -> Result:
    """Do it and wait; an interrupt (Ctrl-C, a notebook's stop) ends it in good order."""
    stoppable = Stoppable()
    with ThreadPoolExecutor(1, "cpsl") as pool:
        future = pool.submit(work, stoppable)
        try:
            return future.result()
        except BaseException:
            stoppable.stop()  # The block waits for its end.
            raise


async def awaited(work: Work[Result]) -> Result:
    """Do it while this loop goes on; cancelling it ends the work in good order."""
    stoppable = Stoppable()
    pool = ThreadPoolExecutor(1, "cpsl")
    future = asyncio.get_running_loop().run_in_executor(pool, work, stoppable)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stoppable.stop()
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # It was to end; why it did is no news.
        raise
    finally:
        pool.shutdown(wait=False)
