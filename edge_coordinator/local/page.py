"""The page of a local run: a process of its own, so that it costs the coordinator nothing."""

import asyncio
import contextlib
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO, cast

_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 5.0


class LocalPage:
    """A process that serves the page of a site, and where."""

    def __init__(self, process: Process, log: IO[bytes]) -> None:
        self._process = process
        self._log = log

    async def where(self) -> str:
        """Say where the page is, or why there is none: a run goes on without."""
        lines = cast(asyncio.StreamReader, self._process.stdout)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_TIMEOUT_S):
                while line := (await lines.readline()).decode(errors="replace").strip():
                    if line.startswith("page: "):
                        return line
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
        return f"no page: {said[-1].removeprefix('cpsl monitor: ')}"


@asynccontextmanager
async def local_page(
    *, broker_url: str, site: str, port: int | None, opens: bool
) -> AsyncIterator[LocalPage]:
    """Serve the page for the length of the block; it ends with this process, however it ends."""
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edge_coordinator", "monitor", "--web", "--end-with-stdin"),
            *("--broker", broker_url, "--site", site),
            *(("--port", str(port)) if port is not None else ()),
            *(() if opens else ("--no-open",)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield LocalPage(process, log)
        finally:
            await _end(process)


async def _end(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
