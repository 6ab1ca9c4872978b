"""Ten who watch a run: as browsers on its page, as monitors, or as scrapers of its metrics."""

import asyncio
import contextlib
import re
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psutil

from benchmarks.programs import CPSL, Program

NUM_WATCHERS = 10
SCRAPED_EVERY_S = 1.0
"""Prometheus scrapes every 15 s where nobody says otherwise."""
KINDS = {
    "page": "browsers on the page of one cpsl monitor --web",
    "prometheus": f"scrapers of one cpsl monitor --prometheus, each every {SCRAPED_EVERY_S:.0f} s",
    "monitors": "cpsl monitor --json, each a client of the broker and a process of its own",
}


class Watching:
    """Ten watchers of one kind, for the length of the block; it begins once all have read."""

    def __init__(self, kind: str, broker: str) -> None:
        self.read_bytes = 0
        """By all of them, since the block began."""
        self._kind, self._broker = kind, broker
        self._programs: list[Program] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._have_read = [asyncio.Event() for _ in range(NUM_WATCHERS)]

    @property
    def processor_s(self) -> float:
        """Processor time of the programs since the block began."""
        return self._processor_s() - self._start_s

    async def __aenter__(self) -> Self:
        """Start whatever watches."""
        folder = Path(tempfile.gettempdir())
        monitor = (*CPSL, "monitor", "--broker", self._broker)
        if self._kind == "monitors":
            for _ in range(NUM_WATCHERS):
                self._programs.append(await Program.start(*monitor, "--json", cwd=folder))
            readers = [self._lines(number) for number in range(NUM_WATCHERS)]
        else:
            serve = ("--web", "--no-open", "--port", "0")
            flags = serve if self._kind == "page" else ("--prometheus", "0")
            program = await Program.start(*monitor, *flags, cwd=folder)
            self._programs.append(program)
            url = re.search(r"http://\S+", await program.until("http://"))
            assert url is not None
            read = self._events if self._kind == "page" else self._scrapes
            readers = [read(url.group(), number) for number in range(NUM_WATCHERS)]
        self._tasks = [asyncio.create_task(reader) for reader in readers]
        await asyncio.gather(*(event.wait() for event in self._have_read))
        self.read_bytes, self._start_s = 0, self._processor_s()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for program in self._programs:
            await program.kill()

    async def _lines(self, number: int) -> None:
        while line := await self._programs[number].until("{"):
            self._note(number, len(line))

    async def _events(self, url: str, number: int) -> None:
        """Read the page's events as a browser does."""
        place = urlsplit(url)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        with contextlib.closing(writer):
            writer.write(f"GET /events HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
            while received := await reader.read(65536):
                self._note(number, len(received))

    async def _scrapes(self, url: str, number: int) -> None:
        place = urlsplit(url)
        asked = f"GET /metrics HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n\r\n"
        while True:
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            with contextlib.closing(writer):
                writer.write(asked.encode())
                self._note(number, len(await reader.read(-1)))
            await asyncio.sleep(SCRAPED_EVERY_S)

    def _note(self, number: int, num_bytes: int) -> None:
        self.read_bytes += num_bytes
        self._have_read[number].set()

    def _processor_s(self) -> float:
        processes = [psutil.Process(program.process.pid) for program in self._programs]
        return sum(sum(process.cpu_times()[:2]) for process in processes)
