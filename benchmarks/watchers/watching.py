"""Ten who watch a run: as browsers on its page, as monitors, or as scrapers of its metrics."""

import asyncio
import contextlib
import re
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlsplit

import psutil

from benchmarks.programs import CPSL, Program

NUM_WATCHERS = 10
SCRAPED_EVERY_S = {"prometheus": 1.0, "coordinator": 15.0, "neighbours": 1.0}
"""Prometheus scrapes every 15 s where nobody says otherwise."""
KINDS = {
    "page": "browsers on the page of one cpsl monitor --web",
    "prometheus": "scrapers of one cpsl monitor --prometheus, each every second",
    "coordinator": "scrapers of the coordinator's own --prometheus, each every 15 s",
    "monitors": "cpsl monitor --json, each a client of the broker and a process of its own",
    "neighbours": "scrapers of a server that knows of no run, each every second",
}
"""The last watch nothing: what they do to a run is what any neighbour does."""


class Watched(Protocol):
    """A run, by where it can be watched."""

    broker: str
    metrics: str


class Watching:
    """Ten watchers of one kind, for the length of the block; it begins once all have read."""

    def __init__(self, kind: str, run: Watched) -> None:
        self.read_bytes = 0
        """By all of them, since the block began."""
        self._kind, self._run = kind, run
        self._programs: list[Program] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._have_read = [asyncio.Event() for _ in range(NUM_WATCHERS)]

    @property
    def processor_s(self) -> float:
        """Processor time of the programs since the block began."""
        return self._processor_s() - self._start_s

    async def __aenter__(self) -> Self:
        """Start whatever watches."""
        readers = await self._readers()
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

    async def _readers(self) -> list[Coroutine[None, None, None]]:
        """Start the programs of this kind, and give who reads them."""
        numbers = range(NUM_WATCHERS)
        match self._kind:
            case "coordinator":
                return [self._scrapes(self._run.metrics, number) for number in numbers]
            case "neighbours":
                server = (sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1")
                url = await self._served(*server)
                return [self._scrapes(url, number) for number in numbers]
            case "monitors":
                for _ in numbers:
                    await self._start("--json")
                return [self._lines(number) for number in numbers]
            case "page":
                url = await self._start_server("--web", "--no-open", "--port", "0")
                return [self._events(url, number) for number in numbers]
        url = await self._start_server("--prometheus", "0")
        return [self._scrapes(url, number) for number in numbers]

    async def _start(self, *flags: str) -> None:
        await self._run_program(*CPSL, "monitor", "--broker", self._run.broker, *flags)

    async def _start_server(self, *flags: str) -> str:
        return await self._served(*CPSL, "monitor", "--broker", self._run.broker, *flags)

    async def _run_program(self, *command: str) -> Program:
        self._programs.append(await Program.start(*command, cwd=Path(tempfile.gettempdir())))
        return self._programs[-1]

    async def _served(self, *command: str) -> str:
        """Start a program that says where it serves."""
        program = await self._run_program(*command)
        url = re.search(r"http://[^\s)]+", await program.until("http://"))
        assert url is not None
        return url.group()

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
        every_s = SCRAPED_EVERY_S[self._kind]
        asked = f"GET /metrics HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n\r\n"
        is_first = True
        while True:
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            with contextlib.closing(writer):
                writer.write(asked.encode())
                self._note(number, len(await reader.read(-1)))
            # Each at its own time: the first scrape of all begins what is measured.
            await asyncio.sleep(every_s * (number + 1) / NUM_WATCHERS if is_first else every_s)
            is_first = False

    def _note(self, number: int, num_bytes: int) -> None:
        self.read_bytes += num_bytes
        self._have_read[number].set()

    def _processor_s(self) -> float:
        processes = [psutil.Process(program.process.pid) for program in self._programs]
        return sum(sum(process.cpu_times()[:2]) for process in processes)
