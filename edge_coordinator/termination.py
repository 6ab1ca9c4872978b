"""Being told to end: a service's SIGTERM ends a run as Ctrl-C does."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine


async def until_terminated(training: Coroutine[None, None, None]) -> None:
    """Train until done; CancelledError if told to end meanwhile."""
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(NotImplementedError):  # Windows has no signals on its loop.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await training
