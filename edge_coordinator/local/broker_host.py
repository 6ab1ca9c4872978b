"""Run a broker for as long as whoever started this process lives.

A program of its own, started by `edge_coordinator.local.broker` with standard input held open:
when that reaches its end the starter is gone, however it died, and so is the broker. It needs
nothing of ours. It answers with one line: `ready PORT NAME`, `taken SENTENCE` or `failed SENTENCE`.
"""

import asyncio
import contextlib
import errno
import importlib
import importlib.metadata
import logging
import os
import re
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from runtime.event_loop import call_at_end_of_input, call_on_signals

_ADDRESS = "127.0.0.1"
_MAX_ATTEMPTS = 5
_START_TIMEOUT_S = 15.0
_STOP_TIMEOUT_S = 3.0
_POLL_S = 0.02
_STABLE_S, _RESTART_PAUSE_S = 10.0, 2.0
_MOSQUITTO_CONF = """\
listener {port} {address}
allow_anonymous true
persistence false
set_tcp_nodelay true
max_packet_size 33554432
max_inflight_messages 100
max_queued_messages 10000
max_queued_bytes 268435456
connection_messages false
log_dest stderr
log_type error
"""
# Both thresholds or neither: one alone makes glibc's allocator slower, not faster.
_MOSQUITTO_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "536870912",
    "MALLOC_TOP_PAD_": "67108864",
}


Running = tuple[str, Callable[[], Awaitable[object]]]
"""A broker's name and version, and how to wait for its end."""


class PortTakenError(Exception):
    """Another program listens on the port."""


class StartError(Exception):
    """The broker did not start."""


async def host(*, executable: str, port: int) -> None:
    """Run `executable`, or amqtt if that is empty, on `port`, or on a free one if that is 0."""
    stop = asyncio.Event()
    call_on_signals((signal.SIGTERM, signal.SIGINT), stop.set)
    call_at_end_of_input(stop.set)
    try:
        await _run_until(stop, executable=executable, port=port)
    except PortTakenError as error:
        _say(f"taken {error}")
    except StartError as error:
        _say(f"failed {error}")


async def _run_until(stop: asyncio.Event, *, executable: str, port: int) -> None:
    for is_last in (False,) * (_MAX_ATTEMPTS - 1) + (True,):
        chosen = port or _free_port()
        try:
            _require_free(chosen)
            broker = _run_mosquitto(executable, chosen) if executable else _run_amqtt(chosen)
            async with broker as (name, ended):
                _say(f"ready {chosen} {name}")
                await _until_either(stop, ended)
            break
        except PortTakenError:  # another program was quicker
            if port or is_last:
                raise
    while not stop.is_set():  # Killed, or it crashed: clients wait for it on the same port.
        async with _run_mosquitto(executable, chosen) as (_, ended):
            started_at_s = asyncio.get_running_loop().time()
            await _until_either(stop, ended)
        if asyncio.get_running_loop().time() - started_at_s < _STABLE_S and not stop.is_set():
            await asyncio.sleep(_RESTART_PAUSE_S)


async def _until_either(stop: asyncio.Event, ended: Callable[[], Awaitable[object]]) -> None:
    """Wait until the broker is to stop, or has ended by itself."""
    waiting = {asyncio.ensure_future(stop.wait()), asyncio.ensure_future(ended())}
    _, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for other in others:
        other.cancel()


@contextlib.asynccontextmanager
async def _run_mosquitto(executable: str, port: int) -> AsyncIterator[Running]:
    name = await _mosquitto_name(executable)
    with (
        tempfile.TemporaryDirectory(prefix="cpsl-broker-") as folder,
        tempfile.TemporaryFile() as log,
    ):
        settings = _write_settings(Path(folder), port)
        process = await asyncio.create_subprocess_exec(
            executable,
            *("-c", str(settings)),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=log,
            env=os.environ | _MOSQUITTO_ENVIRONMENT,
        )
        try:
            if not await _listens(process, port):
                log.seek(0)
                raise _start_error("mosquitto", log.read().decode(errors="replace"), port)
            yield name, process.wait
        finally:
            await _end(process)


def _write_settings(folder: Path, port: int) -> Path:
    """Write mosquitto's settings where the user that it becomes, if we are root, can read them."""
    folder.chmod(0o755)
    settings = folder / "mosquitto.conf"
    settings.write_text(_MOSQUITTO_CONF.format(port=port, address=_ADDRESS), encoding="utf-8")
    settings.chmod(0o644)
    return settings


async def _mosquitto_name(executable: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            executable, "-h", stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL
        )
    except OSError as error:
        raise StartError(f"cannot run {executable}: {error.strerror}") from error
    output, _ = await process.communicate()
    version = re.search(r"version (\S+)", output.decode(errors="replace"))
    return f"mosquitto {version[1]}" if version else "mosquitto"


async def _listens(process: Process, port: int) -> bool:
    """Wait until the broker takes connections; False if it ended instead."""
    async with asyncio.timeout(_START_TIMEOUT_S):
        while process.returncode is None:
            try:
                # Not through the loop: loops of other makes watch no socket.
                connection = await asyncio.to_thread(socket.create_connection, (_ADDRESS, port))
            except OSError:
                await asyncio.sleep(_POLL_S)
                continue
            connection.close()
            return process.returncode is None
    return False


def _start_error(name: str, log: str, port: int) -> Exception:
    if "address already in use" in log.lower():
        return PortTakenError(f"port {port} is already in use")
    lines = log.strip().splitlines() or ["it said nothing"]
    return StartError(f"{name} did not start: {lines[-1].partition('Error: ')[2] or lines[-1]}")


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def _run_amqtt(port: int) -> AsyncIterator[Running]:
    logging.disable(logging.CRITICAL)  # it logs every client's leaving as an error
    try:
        broker = importlib.import_module("amqtt.broker").Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{_ADDRESS}:{port}"}},
                "plugins": {
                    "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
                },
            }
        )
        await broker.start()
    except Exception as error:  # it is a whole program of others; any failure is the same to us
        raise _start_error("amqtt", str(error), port) from error
    try:
        # It lives as long as this process.
        yield f"amqtt {importlib.metadata.version('amqtt')}", asyncio.Event().wait
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(broker.shutdown(), _STOP_TIMEOUT_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_ADDRESS, 0))
        return int(probe.getsockname()[1])


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as brokers do
        try:
            probe.bind((_ADDRESS, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTakenError(f"port {port} is already in use") from error
            raise StartError(f"cannot use port {port}: {error.strerror}") from error


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(host(executable=sys.argv[1], port=int(sys.argv[2])))
