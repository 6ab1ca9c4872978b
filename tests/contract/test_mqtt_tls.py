"""A bus whose way to the broker is encrypted."""

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runtime.bus.broker_url import TlsFiles
from runtime.bus.bus import Delivery
from runtime.bus.mqtt_bus import MqttBus
from runtime.errors import BusError
from tests.contract.fake_broker import fake_broker, until
from tests.outside.mosquitto import make_certificate


async def test_large_messages_pass_tls(mosquitto_url: str, site: str, tmp_path: Path) -> None:
    async with _tls_broker(mosquitto_url, tmp_path) as (url, cafile):
        payload = bytes(range(256)) * 12_000
        tls = TlsFiles(cafile=cafile)
        async with await MqttBus.connect(url, client_id=site, wait=False, tls=tls) as bus:
            await bus.subscribe(site)
            await bus.publish(site, payload, retain=False)
            delivery = await until(bus, Delivery)
            assert isinstance(delivery, Delivery)
            assert delivery.payload == payload


@pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")  # paho's, after a failure
async def test_a_certificate_that_nobody_vouches_for_is_an_error_at_once(
    mosquitto_url: str, tmp_path: Path
) -> None:
    async with _tls_broker(mosquitto_url, tmp_path) as (url, _):
        with pytest.raises(BusError, match="its certificate is not trusted"):
            await MqttBus.connect(url, client_id="a", wait=True)
    gc.collect()


@asynccontextmanager
async def _tls_broker(broker_url: str, folder: Path) -> AsyncIterator[tuple[str, Path]]:
    """Put TLS before a broker; yields the URL and the certificate to trust."""
    certificate, key = await make_certificate(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    port = int(broker_url.rpartition(":")[2])

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_pump(reader, broker_writer))
            tasks.create_task(_pump(broker_reader, writer))

    async with fake_broker(relay, tls=context) as url:
        yield url, certificate


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    finally:
        writer.close()
