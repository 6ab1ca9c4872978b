"""Real brokers, and wires to each kind of bus that a test can cut."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Protocol

import pytest
import pytest_asyncio

from device_agent.emulation.bus import EmulatedBus
from edge_coordinator.local.broker import find_mosquitto, local_broker
from profiles.emulation import DeviceClass
from runtime.bus.bus import Bus, Will
from runtime.bus.memory_bus import MemoryBroker, MemoryBus
from runtime.bus.mqtt_bus import MqttBus

EMULATED = "emulated"


class ClosableBus(Bus, Protocol):
    """A bus as a program holds it."""

    async def close(self) -> None:
        """Leave without a will."""
        ...


class Wire(Protocol):
    """Connects buses of one kind to one broker, and cuts them off."""

    async def connect(self, name: str, *, will: Will | None = None) -> ClosableBus:
        """Connect a client."""
        ...

    def cut(self, name: str) -> None:
        """Break a client's connection and keep it broken."""
        ...

    def restore(self, name: str) -> None:
        """Let a client connect again."""
        ...


class MemoryWire:
    """Buses of one in-process broker."""

    def __init__(self) -> None:
        self._broker = MemoryBroker()
        self._buses: dict[str, MemoryBus] = {}

    async def connect(self, name: str, *, will: Will | None = None) -> ClosableBus:
        """Connect a client."""
        self._buses[name] = self._broker.connect(name, will=will)
        return self._buses[name]

    def cut(self, name: str) -> None:
        """Break a client's connection and keep it broken."""
        self._buses[name].cut("the cable was pulled")

    def restore(self, name: str) -> None:
        """Let a client connect again."""
        self._buses[name].restore()

    async def close(self) -> None:
        """Close every bus."""
        for bus in self._buses.values():
            await bus.close()


class EmulatedWire(MemoryWire):
    """Buses of one in-process broker, each behind a link of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._emulated: list[EmulatedBus] = []

    async def connect(self, name: str, *, will: Will | None = None) -> ClosableBus:
        """Connect a client through an emulated link."""
        await super().connect(name, will=will)
        link = DeviceClass(name="line", up_bps=2e9, down_bps=1e9, delay_s=0.001)
        self._emulated.append(EmulatedBus(self._buses[name], link))
        return self._emulated[-1]

    async def close(self) -> None:
        """Close every bus."""
        for bus in self._emulated:
            await bus.close()


class Relay:
    """Passes bytes between a client and a broker, until it is cut."""

    def __init__(self, broker_port: int) -> None:
        self._broker_port = broker_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[None] | None] = set()
        self.is_cut = False

    async def open(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Reset every connection, and those to come."""
        self.is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        """Stop listening and end every connection."""
        self.cut()
        assert self._server is not None
        self._server.close()
        if sessions := {session for session in self._sessions if session is not None}:
            await asyncio.wait(sessions)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        session = asyncio.current_task()
        self._sessions.add(session)
        broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self._broker_port)
        self._writers |= {writer, broker_writer}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_pump(reader, broker_writer))
            tasks.create_task(_pump(broker_reader, writer))
        self._writers -= {writer, broker_writer}
        self._sessions.discard(session)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    writer.transport.close()


class MqttWire:
    """Buses of one MQTT broker, each through a relay of its own."""

    def __init__(self, broker_url: str) -> None:
        self._broker_port = int(broker_url.rpartition(":")[2])
        self._relays: dict[str, Relay] = {}
        self._buses: list[MqttBus] = []

    async def connect(self, name: str, *, will: Will | None = None) -> ClosableBus:
        """Connect a client."""
        relay = self._relays[name] = Relay(self._broker_port)
        url = f"mqtt://127.0.0.1:{await relay.open()}"
        client_id = f"{name}-{uuid.uuid4().hex[:8]}"
        bus = await MqttBus.connect(url, client_id=client_id, will=will, wait=False)
        self._buses.append(bus)
        return bus

    def cut(self, name: str) -> None:
        """Break a client's connection and keep it broken."""
        self._relays[name].cut()

    def restore(self, name: str) -> None:
        """Let a client connect again."""
        self._relays[name].is_cut = False

    async def close(self) -> None:
        """Close every bus and relay."""
        for bus in self._buses:
            await bus.close()
        for relay in self._relays.values():
            await relay.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mosquitto_url() -> AsyncIterator[str]:
    """Run mosquitto on a free port."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed here")
    async with local_broker("mosquitto", None) as broker:
        yield broker.url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def amqtt_url() -> AsyncIterator[str]:
    """Run amqtt on a free port."""
    async with local_broker("amqtt", None) as broker:
        yield broker.url


@pytest.fixture(params=["memory", "emulated", "mosquitto", "amqtt"])
def broker_url(request: pytest.FixtureRequest) -> str | None:
    """Return where the broker of the kind under test is, None for the one in memory."""
    if request.param == "memory":
        return None
    if request.param == "emulated":
        return EMULATED
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
async def wire(broker_url: str | None) -> AsyncIterator[Wire]:
    """Return a wire to the kind of bus under test."""
    wire = (
        EmulatedWire()
        if broker_url == EMULATED
        else MqttWire(broker_url)
        if broker_url
        else MemoryWire()
    )
    yield wire
    await wire.close()


@pytest.fixture
def site() -> str:
    """Return a topic that no other test uses."""
    return f"test/{uuid.uuid4().hex[:8]}"
