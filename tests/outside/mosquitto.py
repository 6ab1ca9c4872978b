"""A Mosquitto of a test's own: a listener for MQTT, and one for WebSockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_coordinator.local.broker import find_mosquitto
from runtime.bus.mqtt_bus import MqttBus
from tests.outside.ports import free_port


@dataclass
class Listeners:
    """Where one Mosquitto listens, as HOST:PORT."""

    web: str
    plain: str


@asynccontextmanager
async def mosquitto(
    folder: Path, *, of_web: str = "", of_all: str = ""
) -> AsyncIterator[Listeners]:
    """Run it for the length of the block, with these lines in its configuration.

    `of_web` is about the listener for WebSockets; without `of_all` everybody may do everything.
    """
    executable = find_mosquitto()
    if executable is None:
        pytest.skip("mosquitto is not installed here")
    at = Listeners(*(f"127.0.0.1:{free_port()}" for _ in range(2)))
    web, plain = (address.rpartition(":")[2] for address in (at.web, at.plain))
    path = folder / "mosquitto.conf"
    path.write_text(
        f"per_listener_settings false\nlistener {web} 127.0.0.1\nprotocol websockets\n{of_web}\n"
        f"listener {plain} 127.0.0.1\n{of_all or 'allow_anonymous true'}\nlog_dest none\n"
    )
    process = await asyncio.create_subprocess_exec(executable, "-c", path)
    try:
        async with await MqttBus.connect(f"mqtt://{at.plain}", client_id="first", wait=True):
            yield at
    finally:
        process.terminate()
        await process.wait()
