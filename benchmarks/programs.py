"""The programs as their users start them, to be watched, killed, and started again."""

import asyncio
import contextlib
import hashlib
import json
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from edge_coordinator.local.broker import find_mosquitto
from runtime.event_loop import call_on_signals
from runtime.service.exit_codes import ExitCode

Result = TypeVar("Result")
CPSL = (sys.executable, "-m", "edge_coordinator")
AGENT = (sys.executable, "-m", "device_agent")


ENDING_S = 10.0
"""For a program that is told to end."""
_STARTED = list[Process]()
"""By whom nobody is left behind, however a benchmark ends."""


def run_to_end(benchmark: Coroutine[Any, Any, Result]) -> Result:
    """Run a benchmark, and end what is left of the programs that it started.

    Interrupted, or told to end, it says so and exits.
    """
    try:
        return asyncio.run(_without_leftovers(benchmark))
    except KeyboardInterrupt:
        print("interrupted: what was started has been ended", flush=True)
        raise SystemExit(ExitCode.INTERRUPTED) from None
    except asyncio.CancelledError:
        print("told to end: what was started has been ended", flush=True)
        raise SystemExit(ExitCode.TERMINATED) from None


async def _without_leftovers(benchmark: Coroutine[Any, Any, Result]) -> Result:
    task = asyncio.current_task()
    assert task is not None
    call_on_signals([signal.SIGTERM], task.cancel)
    try:
        return await benchmark
    finally:
        left = [process for process in _STARTED if process.returncode is None]
        _STARTED.clear()
        await _ended(left)


async def _ended(processes: Sequence[Process]) -> None:
    """Tell programs to end, so that they end what they have started; kill who does not."""
    for process in processes:
        process.terminate()
    waiting = asyncio.gather(*(process.wait() for process in processes))
    try:
        await asyncio.wait_for(asyncio.shield(waiting), ENDING_S)
    except TimeoutError:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await waiting


class Program:
    """A running program and the lines that it prints."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[str] = []

    @classmethod
    async def start(cls, *arguments: str, cwd: Path) -> "Program":
        """Start it in a session of its own."""
        process = await asyncio.create_subprocess_exec(
            *arguments, cwd=cwd, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True
        )
        _STARTED.append(process)
        return cls(process)

    async def until(self, words: str) -> str:
        """Read up to a line with these words; RuntimeError if the program ends before."""
        async for line in self._read():
            if words in line:
                return line
        raise RuntimeError(f"ended before it said {words!r}: {' | '.join(self.lines[-5:])}")

    async def end(self) -> int:
        """Read what it says until it ends; its exit code."""
        async for _ in self._read():
            pass
        return await self.process.wait()

    async def kill(self) -> None:
        """Kill it as `kill -9` does."""
        if self.process.returncode is None:
            self.process.kill()
        await self.end()

    async def _read(self) -> AsyncIterator[str]:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.lines.append(line.decode(errors="replace").rstrip())
            yield self.lines[-1]


class OwnBroker:
    """A mosquitto that can be killed and started again on the same port."""

    def __init__(self, folder: Path, settings: Sequence[str] = ()) -> None:
        self.port = free_port()
        self._settings = folder / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", *settings]
        self._settings.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"mqtt://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it; returns once it takes connections."""
        executable = find_mosquitto()
        if executable is None:
            raise SystemExit("this needs mosquitto")
        self._process = await asyncio.create_subprocess_exec(
            executable, "-c", str(self._settings), stdout=DEVNULL, stderr=DEVNULL
        )
        async with asyncio.timeout(10):
            await self._until_it_listens()

    def kill(self) -> None:
        """Kill it as `kill -9` does."""
        assert self._process is not None
        self._process.kill()

    def stop(self) -> None:
        """Stop it as a service manager does."""
        assert self._process is not None
        self._process.terminate()

    async def ended(self) -> None:
        """Wait until it is gone."""
        assert self._process is not None
        await self._process.wait()

    async def _until_it_listens(self) -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                return writer.close()


@asynccontextmanager
async def own_broker(folder: Path, settings: Sequence[str] = ()) -> AsyncIterator[OwnBroker]:
    """Run a broker for the length of the block."""
    broker = OwnBroker(folder, settings)
    await broker.start()
    try:
        yield broker
    finally:
        broker.kill()
        await broker.ended()


async def start_agent(
    url: str, index: int, count: int, *flags: str, folder: Path, data: str = "digits"
) -> Program:
    """Start the agent of device `dev-INDEX`, with its share of the data."""
    return await Program.start(
        *AGENT, "--broker", url, "--wait", "--id", f"dev-{index}", "--data", data,
        "--shard", f"{index}/{count}", "--log-level", "warning", *flags, cwd=folder,
    )  # fmt: skip


@asynccontextmanager
async def agents(
    url: str, count: int, *flags: str, folder: Path, data: str = "digits"
) -> AsyncIterator[list[Program]]:
    """Run so many agents, each in a process of its own, for the length of the block."""
    programs = [
        await start_agent(url, index, count, *flags, folder=folder, data=data)
        for index in range(count)
    ]
    try:
        yield programs
    finally:
        for program in programs:
            await program.kill()


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_directory(output: Path) -> Path:
    """Find the one run below an output folder."""
    (path,) = output.iterdir()
    return path


def weights_sha256(run: Path) -> str:
    """SHA-256 of the last weights of a run."""
    return hashlib.sha256((run / "last.safetensors").read_bytes()).hexdigest()


def rounds_of(run: Path) -> list[dict[str, Any]]:
    """Read what a run wrote down of its rounds."""
    text = (run / "rounds.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long ago that was."""
        return time.monotonic() - self._start_s
