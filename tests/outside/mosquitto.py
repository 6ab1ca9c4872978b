"""A Mosquitto of a test's own: a listener for MQTT, and one for WebSockets."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from edge_coordinator.local.broker import find_mosquitto
from runtime.bus.mqtt_bus import MqttBus
from tests.outside.ports import free_port

START_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Listeners:
    """Where one Mosquitto listens, as HOST:PORT."""

    web: str
    plain: str

    @classmethod
    def free(cls) -> "Listeners":
        """Where nobody listens yet."""
        return cls(*(f"127.0.0.1:{free_port()}" for _ in range(2)))


@asynccontextmanager
async def mosquitto(
    folder: Path,
    *,
    at: Listeners | None = None,
    of_web: str = "",
    of_all: str = "allow_anonymous true",
    user: str = "",
) -> AsyncIterator[Listeners]:
    """Run it for the length of the block, with these lines in its configuration.

    `of_web` is about the listener for WebSockets. `user` is USER:PASSWORD of who may connect.
    """
    executable = find_mosquitto()
    if executable is None:
        pytest.skip("mosquitto is not installed here")
    at = at or Listeners.free()
    web, plain = (address.rpartition(":")[2] for address in (at.web, at.plain))
    path = folder / "mosquitto.conf"
    path.write_text(
        f"user root\nlistener {web} 127.0.0.1\nprotocol websockets\n{of_web}\n"
        f"listener {plain} 127.0.0.1\n{of_all}\nlog_dest none\n"
    )
    process = await asyncio.create_subprocess_exec(executable, "-c", path)
    try:
        url = f"mqtt://{user and quote(user, safe=':') + '@'}{at.plain}"
        async with asyncio.timeout(START_TIMEOUT_S):
            first = await MqttBus.connect(url, client_id="first", wait=True)
        async with first:
            yield at
    finally:
        process.terminate()
        await process.wait()


async def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Return a new certificate for localhost and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, to make a certificate")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    name = "-subj /CN=localhost -addext subjectAltName=DNS:localhost"
    process = await asyncio.create_subprocess_exec(
        *(*command.split(), *name.split(), "-keyout", str(key), "-out", str(certificate)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0
    return certificate, key
