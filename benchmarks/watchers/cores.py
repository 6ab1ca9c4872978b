"""Cores of this machine: one for the run, the others for who watches it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.programs import Program

_BUSY = "import os\nos.nice(19)\nwhile True: pass"


class Cores:
    """What this process starts runs where this process does: so it moves before it starts it."""

    def __init__(self, *, are_shared: bool) -> None:
        """SystemExit where there is one core only: then the run has none of its own."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise SystemExit("this needs two cores: one for the run, others for who watches it")
        self._of_run = set(cores if are_shared else cores[:1])
        self._others = set(cores if are_shared else cores[1:])

    def for_run(self) -> None:
        """Start on the run's core from now on."""
        os.sched_setaffinity(0, self._of_run)

    def for_watchers(self) -> None:
        """Start on the others from now on."""
        os.sched_setaffinity(0, self._others)

    @asynccontextmanager
    async def kept_busy(self) -> AsyncIterator[None]:
        """Keep the watchers' cores busy for the length of the block, below all else there.

        A machine with nothing to do clocks down, forgets what it had in its caches, and takes more
        processor time for the same work.
        """
        self.for_watchers()
        busy = [
            await Program.start(sys.executable, "-c", _BUSY, cwd=Path.cwd()) for _ in self._others
        ]
        try:
            yield
        finally:
            await asyncio.gather(*(program.kill() for program in busy))
