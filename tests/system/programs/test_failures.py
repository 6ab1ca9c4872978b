"""Real processes and a real Mosquitto that die in the midst of a run."""

import asyncio
import socket
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from getpass import getuser
from pathlib import Path
from sys import executable

import pytest

from edge_coordinator.local.broker import find_mosquitto
from runtime.bus.bus import Delivery
from runtime.bus.mqtt_bus import MqttBus
from runtime.wire.published import DeviceStatus
from runtime.wire.topics import Topics

MOSQUITTO = find_mosquitto()
pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed here")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _start_broker(port: int, *flags: str) -> Process:
    assert MOSQUITTO is not None
    return await asyncio.create_subprocess_exec(
        MOSQUITTO, *(flags or ("-p", str(port))), stdout=DEVNULL, stderr=DEVNULL
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
        "--broker", f"mqtt://127.0.0.1:{port}", "--wait", "--devices", "2", "--plan", "by_hand",
        "--clusters", "1", "--rounds", "12", "--output", name,
        cwd=folder, stdout=PIPE, stderr=STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        while b"round 3," not in (line := await process.stdout.readline()):
            assert line, "the coordinator ended before round 3"
        yield process
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        assert b"trained 12 rounds" in output
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _weights(folder: Path, name: str) -> bytes:
    (path,) = (folder / name).glob("*/last.safetensors")
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


async def _retained_status(port: int, device: str) -> DeviceStatus:
    url, topic = f"mqtt://127.0.0.1:{port}", Topics("default").status(device)
    async with await MqttBus.connect(url, client_id="watcher", wait=True) as bus:
        await bus.subscribe(topic)
        async for event in bus.events():
            if isinstance(event, Delivery):
                return DeviceStatus.decode(event.payload)
    raise AssertionError("no status is retained")


async def test_an_agent_that_fails_says_so_in_one_sentence_and_is_offline(tmp_path: Path) -> None:
    """Here it may say that it is there, but not what it is."""
    port = _free_port()
    lines = ("cpsl/+/device/+/status", "cpsl/+/device/+/command", "cpsl-tensors/#")
    (tmp_path / "acl").write_text("".join(f"topic readwrite {topic}\n" for topic in lines))
    (tmp_path / "broker.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nacl_file {tmp_path / 'acl'}\n"
        f"user {getuser()}\n"
    )
    broker = await _start_broker(port, "-c", str(tmp_path / "broker.conf"))
    agent = await asyncio.create_subprocess_exec(
        executable, "-m", "device_agent", "--broker", f"mqtt://127.0.0.1:{port}", "--wait",
        "--id", "d0", "--data", "digits", "--log-level", "error",
        cwd=tmp_path, stdout=PIPE, stderr=STDOUT,
    )  # fmt: skip
    try:
        output, _ = await agent.communicate()
        assert agent.returncode == 1
        assert b"d0/profile: the broker refused it: not authorized" in output
        assert output.count(b"\n") == 1
        assert (await _retained_status(port, "d0")).state == "offline"
    finally:
        for process in (agent, broker):
            if process.returncode is None:
                process.kill()
            await process.wait()
