"""Real processes and a real Mosquitto that die in the midst of a run."""

import asyncio
import socket
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from sys import executable

import pytest

from edge_coordinator.local_broker import find_mosquitto

MOSQUITTO = find_mosquitto()
pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed here")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _start_broker(port: int) -> Process:
    assert MOSQUITTO is not None
    return await asyncio.create_subprocess_exec(
        MOSQUITTO, "-p", str(port), stdout=DEVNULL, stderr=DEVNULL
    )


async def _start_agent(port: int, index: int, folder: Path) -> Process:
    return await asyncio.create_subprocess_exec(
        executable, "-m", "device_agent", "--broker", f"mqtt://127.0.0.1:{port}", "--wait",
        "--id", f"d{index}", "--data", "digits", "--shard", f"{index}/2",
        cwd=folder, stdout=DEVNULL, stderr=DEVNULL,
    )  # fmt: skip


@asynccontextmanager
async def _coordinator(port: int, folder: Path, name: str) -> AsyncIterator[Process]:
    """Start a coordinator; when the block ends it must have done all its rounds."""
    process = await asyncio.create_subprocess_exec(
        executable, "-m", "edge_coordinator", "coordinator",
        "--broker", f"mqtt://127.0.0.1:{port}", "--wait", "--devices", "2", "--clusters", "1",
        "--rounds", "25", "--output", name,
        cwd=folder, stdout=PIPE, stderr=STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        while b"round 3," not in (line := await process.stdout.readline()):
            assert line, "the coordinator ended before round 3"
        yield process
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        assert b"trained 25 rounds" in output
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _weights(folder: Path, name: str) -> bytes:
    (path,) = (folder / name).glob("*/model.safetensors")
    return path.read_bytes()


@pytest.mark.timeout(400)
async def test_a_broker_that_dies_changes_no_bit_and_a_device_that_dies_does_not_stop_the_run(
    tmp_path: Path,
) -> None:
    port = _free_port()
    broker = await _start_broker(port)
    agents = [await _start_agent(port, index, tmp_path) for index in range(2)]
    try:
        async with _coordinator(port, tmp_path, "calm"):
            pass
        async with _coordinator(port, tmp_path, "broker-died"):
            broker.kill()
            await broker.wait()
            broker = await _start_broker(port)
        assert _weights(tmp_path, "calm") == _weights(tmp_path, "broker-died")
        async with _coordinator(port, tmp_path, "device-died"):
            agents[1].kill()
    finally:
        for process in (*agents, broker):
            if process.returncode is None:
                process.kill()
            await process.wait()
