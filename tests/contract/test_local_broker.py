"""The broker of a local run: found, started, and never left behind."""

import asyncio
import socket
import sys

import psutil
import pytest

from edge_coordinator.local.broker import BrokerKind, find_mosquitto, local_broker
from runtime.bus.bus import Connected, Disconnected
from runtime.bus.mqtt_bus import MqttBus
from runtime.errors import BusError, SettingsError, TakenError

_STARTER = """
import asyncio
from edge_coordinator.local.broker import local_broker

async def main():
    async with local_broker({kind!r}, None) as broker:
        print(broker.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

KINDS = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            "mosquitto",
            marks=pytest.mark.skipif(find_mosquitto() is None, reason="needs mosquitto"),
        ),
        "amqtt",
    ],
)


@KINDS
async def test_the_broker_ends_with_its_block(kind: BrokerKind) -> None:
    async with local_broker(kind, None) as broker:
        assert broker.kind.startswith(f"{kind} ")
        async with await MqttBus.connect(broker.url, client_id="a", wait=False):
            pass
    with pytest.raises(BusError, match="cannot reach"):
        await MqttBus.connect(broker.url, client_id="a", wait=False)


@KINDS
async def test_the_broker_ends_when_its_starter_is_killed(kind: BrokerKind) -> None:
    starter = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _STARTER.format(kind=kind)), stdout=asyncio.subprocess.PIPE
    )
    assert starter.stdout is not None
    url = (await starter.stdout.readline()).decode().strip()
    bus = await MqttBus.connect(url, client_id="a", wait=False)
    starter.kill()
    await starter.wait()
    async for event in bus.events():
        if isinstance(event, Disconnected):
            break
    await bus.close()
    # It drops its clients before it stops to listen.
    with pytest.raises(BusError, match="cannot reach"):
        await _connect_until_refused(url)


async def _connect_until_refused(url: str) -> None:
    while True:
        async with await MqttBus.connect(url, client_id="a", wait=False):
            pass


@pytest.mark.skipif(find_mosquitto() is None, reason="needs mosquitto")
async def test_a_broker_that_is_killed_comes_back_on_its_port() -> None:
    before = psutil.Process().children()
    async with (
        local_broker("mosquitto", None) as broker,
        await MqttBus.connect(broker.url, client_id="a", wait=False) as bus,
    ):
        (host,) = set(psutil.Process().children()) - set(before)
        (mosquitto,) = host.children()
        mosquitto.kill()
        events = [await anext(bus.events()) for _ in range(3)]
        assert [type(event) for event in events] == [Connected, Disconnected, Connected]


@KINDS
async def test_a_port_in_use_is_named(kind: BrokerKind) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(TakenError, match=f"port {port} is already in use"):
            async with local_broker(kind, port):
                pass


async def test_a_number_that_is_no_port_is_refused() -> None:
    with pytest.raises(SettingsError, match="70000 is not a port"):
        async with local_broker("auto", 70_000):
            pass
