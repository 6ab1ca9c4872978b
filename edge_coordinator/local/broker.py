"""A broker for runs on one machine: mosquitto if it is installed, else amqtt, on loopback."""

import asyncio
import importlib.util
import shutil
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

from runtime.errors import BusError, SettingsError, TakenError

BrokerKind = Literal["auto", "mosquitto", "amqtt"]

# Packages put it where only an administrator's PATH leads.
_MORE_FOLDERS = (
    "/usr/sbin",
    "/usr/local/sbin",
    "/opt/homebrew/sbin",
    r"C:\Program Files\mosquitto",
)
_HOST = Path(__file__).with_name("broker_host.py")
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 8.0


@dataclass(frozen=True)
class LocalBroker:
    """A broker that runs: where, and what it is (such as `mosquitto 2.0.11`)."""

    url: str
    kind: str
    _host: Process

    async def watch(self) -> None:
        """Raise BusError once nothing keeps the broker running any more."""
        code = await self._host.wait()
        raise BusError(
            f"the local broker at {self.url} ended (exit code {code}); go on with --resume"
        )


def find_mosquitto() -> str | None:
    """Return the path of this machine's mosquitto, None if it has none."""
    return shutil.which("mosquitto") or next(
        (found for folder in _MORE_FOLDERS if (found := shutil.which("mosquitto", path=folder))),
        None,
    )


@asynccontextmanager
async def local_broker(kind: BrokerKind, port: int | None) -> AsyncIterator[LocalBroker]:
    """Run a broker on `port` of this machine, or on a free one, for the length of the block.

    It runs in processes of its own, out of the reach of a Ctrl-C, which end with this one
    however this one ends.
    """
    executable = _choose(kind)
    if port is not None and not 0 < port < 65536:
        raise SettingsError(f"{port} is not a port; ports are 1 to 65535")
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-W", "ignore", str(_HOST), executable, str(port or 0)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield await _until_ready(process, log)
        finally:
            await _end(process)


def _choose(kind: BrokerKind) -> str:
    """Return the path of mosquitto, or nothing for amqtt."""
    executable = find_mosquitto() if kind != "amqtt" else None
    if executable is not None:
        return executable
    if kind == "mosquitto":
        raise SettingsError(
            "mosquitto is not installed here (searched PATH and "
            f"{', '.join(_MORE_FOLDERS[:3])}); install it, or use the broker kind amqtt"
        )
    if importlib.util.find_spec("amqtt") is None:
        raise SettingsError(
            "there is no broker here: install mosquitto, or amqtt (pip install amqtt)"
        )
    return ""


async def _until_ready(process: Process, log: IO[bytes]) -> LocalBroker:
    answers = cast(asyncio.StreamReader, process.stdout)
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            line = (await answers.readline()).decode().strip()
    except TimeoutError as error:
        raise BusError(f"the local broker did not start in {_START_TIMEOUT_S:g} s") from error
    outcome, _, rest = line.partition(" ")
    match outcome:
        case "ready":
            port, _, name = rest.partition(" ")
            return LocalBroker(url=f"mqtt://127.0.0.1:{port}", kind=name, _host=process)
        case "taken":
            raise TakenError(f"{rest}; choose another one, or leave it out for a free one")
        case "failed":
            raise BusError(rest)
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
    raise BusError(f"the local broker did not start: {lines[-1]}")


async def _end(process: Process) -> None:
    """Let the broker end as it would if this process died."""
    cast(asyncio.StreamWriter, process.stdin).close()
    try:
        await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
