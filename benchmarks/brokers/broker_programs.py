"""MQTT brokers that this machine may have, each started on loopback for the length of a block."""

import asyncio
import os
import shutil
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

from benchmarks.programs import free_port, own_broker
from edge_coordinator.local.broker import find_mosquitto, local_broker

_AEDES = """
const aedes = require('aedes');
const net = require('net');
const make = aedes.Aedes && aedes.Aedes.createBroker ? aedes.Aedes.createBroker() : aedes();
Promise.resolve(make).then(broker =>
  net.createServer(broker.handle).listen(Number(process.argv[2]), '127.0.0.1'));
"""
_RABBITMQ = Path("/usr/lib/rabbitmq/lib")


class NotHereError(Exception):
    """A broker that this machine does not have."""


@asynccontextmanager
async def _mosquitto(folder: Path) -> AsyncIterator[str]:
    if find_mosquitto() is None:
        raise NotHereError("mosquitto")
    async with own_broker(folder) as broker:
        yield broker.url


@asynccontextmanager
async def _mosquitto_websockets(folder: Path) -> AsyncIterator[str]:
    if find_mosquitto() is None:
        raise NotHereError("mosquitto")
    # Mosquitto 2.0.11 does not start with a listener for WebSockets alone.
    settings = ["protocol websockets", f"listener {free_port()} 127.0.0.1"]
    async with own_broker(folder, settings) as broker:
        yield f"ws://127.0.0.1:{broker.port}/mqtt"


@asynccontextmanager
async def _amqtt(_: Path) -> AsyncIterator[str]:
    if find_spec("amqtt") is None:
        raise NotHereError("amqtt")
    async with local_broker("amqtt", None) as broker:
        yield broker.url


@asynccontextmanager
async def _aedes(folder: Path) -> AsyncIterator[str]:
    node, port = shutil.which("node"), free_port()
    if node is None:
        raise NotHereError("node")
    asked = await asyncio.create_subprocess_exec(
        node, "-e", "require('aedes')", stdout=DEVNULL, stderr=DEVNULL
    )
    if await asked.wait():
        raise NotHereError("npm install aedes, and NODE_PATH")
    script = folder / "aedes.js"
    script.write_text(_AEDES, encoding="utf-8")
    async with _running([node, str(script), str(port)], port):
        yield f"mqtt://127.0.0.1:{port}"


@asynccontextmanager
async def _nats(folder: Path) -> AsyncIterator[str]:
    server, port = shutil.which("nats-server"), free_port()
    if server is None:
        raise NotHereError("nats-server")
    settings = folder / "nats.conf"
    settings.write_text(
        f"server_name: trial\nhost: 127.0.0.1\nport: {free_port()}\n"
        f'jetstream {{ store_dir: "{folder / "nats"}" }}\n'
        f"mqtt {{ host: 127.0.0.1\n port: {port} }}\n",
        encoding="utf-8",
    )
    async with _running([server, "-c", str(settings)], port):
        yield f"mqtt://127.0.0.1:{port}"


@asynccontextmanager
async def _rabbitmq(folder: Path) -> AsyncIterator[str]:
    servers = _rabbitmq_servers()
    if not servers or shutil.which("epmd") is None:
        raise NotHereError("rabbitmq-server")
    port, epmd_port = free_port(), free_port()
    (folder / "plugins").write_text("[rabbitmq_mqtt].\n", encoding="utf-8")
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp = none\nmqtt.listeners.tcp.1 = 127.0.0.1:{port}\n"
        "mqtt.allow_anonymous = true\n",
        encoding="utf-8",
    )
    environment = {
        "HOME": str(folder),
        "PATH": os.environ["PATH"],
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd_port),
        "RABBITMQ_NODENAME": "trial@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
    }
    try:
        async with _running([str(servers[-1])], port, environment):
            yield f"mqtt://127.0.0.1:{port}"
    finally:
        ended = await asyncio.create_subprocess_exec(
            *("epmd", "-port", str(epmd_port), "-kill"), env=environment, stdout=DEVNULL
        )
        await ended.wait()


def _rabbitmq_servers() -> list[Path]:
    """Find the program itself: the one on the path becomes another user."""
    return sorted(_RABBITMQ.glob("rabbitmq_server-*/sbin/rabbitmq-server"))


@asynccontextmanager
async def _running(
    command: Sequence[str], port: int, environment: Mapping[str, str] | None = None
) -> AsyncIterator[None]:
    """Run a broker until the end of the block; it listens when the block begins."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=DEVNULL, stderr=DEVNULL, env=environment
    )
    try:
        async with asyncio.timeout(60):
            while not await _listens(port):
                if process.returncode is not None:
                    raise RuntimeError(f"{command[0]} ended with {process.returncode}")
                await asyncio.sleep(0.1)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


BROKERS: Mapping[str, Callable[[Path], AbstractAsyncContextManager[str]]] = {
    "mosquitto": _mosquitto,
    "mosquitto-websockets": _mosquitto_websockets,
    "amqtt": _amqtt,
    "aedes": _aedes,
    "nats": _nats,
    "rabbitmq": _rabbitmq,
}
