"""Being told to end: a service's SIGTERM ends a run as Ctrl-C does."""

import asyncio
import signal
from collections.abc import Coroutine

from runtime.event_loop import call_on_signals


async def until_terminated(training: Coroutine[None, None, None]) -> None:
    """Train until done; CancelledError if told to end meanwhile."""
    task = asyncio.current_task()
    assert task is not None
    call_on_signals([signal.SIGTERM], task.cancel)
    await training
