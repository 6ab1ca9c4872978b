"""What only a bus through a real broker, or one that misbehaves, can show."""

import asyncio
from functools import partial

import pytest

from device_agent.engines.measurement import SharedFindings
from edge_coordinator.local.broker import find_mosquitto, local_broker
from runtime.bus.bus import Connected, Delivery, Disconnected
from runtime.bus.mqtt_bus import MqttBus
from runtime.bus.paho_client import FastClient, client_class
from runtime.errors import BusError
from tests.contract.fake_broker import fake_broker, hang_up, read_packet, until

_CONNACK5 = b"\x20\x03\x00\x00\x00"
_NOT_AUTHORIZED5 = b"\x20\x03\x00\x87\x00"
_TAKEN_OVER5 = b"\xe0\x02\x8e\x00"
_RECEIVE_MAXIMUM_2 = b"\x20\x06\x00\x00\x03\x21\x00\x02"

needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason="needs mosquitto")


@needs_mosquitto
async def test_a_broker_that_comes_back_gets_what_was_pending(site: str) -> None:
    async with local_broker("mosquitto", None) as broker:
        port = int(broker.url.rpartition(":")[2])
        bus = await MqttBus.connect(broker.url, client_id="a", wait=False)
        await bus.subscribe(site)
    await until(bus, Disconnected)
    pending = [asyncio.ensure_future(bus.publish(site, b"x", retain=False)) for _ in range(40)]
    async with local_broker("mosquitto", port):
        await until(bus, Connected)
        await asyncio.gather(*pending)
        for _ in range(40):
            await until(bus, Delivery)
        await bus.close()


async def test_a_bus_that_may_wait_connects_once_there_is_a_broker(amqtt_url: str) -> None:
    broker_port = int(amqtt_url.rpartition(":")[2])
    told: asyncio.Queue[str] = asyncio.Queue()
    ready = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not ready.is_set():
            return
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", broker_port)
        try:
            upstream_writer.write(await reader.read(1000))
            writer.write(await upstream_reader.read(1000))
            await reader.read(1000)
        finally:
            upstream_writer.close()

    async with fake_broker(handle) as url, asyncio.TaskGroup() as tasks:
        connecting = tasks.create_task(
            MqttBus.connect(url, client_id="a", wait=True, on_waiting=told.put_nowait)
        )
        assert f"the broker at {url} closed the connection unanswered" in await told.get()
        ready.set()
        await (await connecting).close()


async def test_an_absent_broker_is_named_in_one_sentence() -> None:
    async with fake_broker(hang_up) as url:
        pass
    with pytest.raises(BusError, match=f"^cannot reach the broker at {url}: connection refused$"):
        await MqttBus.connect(url, client_id="a", wait=False)


async def test_waiting_for_a_broker_can_be_given_up() -> None:
    async with fake_broker(hang_up) as url:
        pass
    told: asyncio.Queue[str] = asyncio.Queue()
    connecting = asyncio.ensure_future(
        MqttBus.connect(url, client_id="a", wait=True, on_waiting=told.put_nowait)
    )
    await told.get()
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting


@pytest.mark.parametrize("wait", [False, True])
async def test_a_refused_password_is_an_error_at_once(*, wait: bool) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_packet(reader)
        writer.write(_NOT_AUTHORIZED5)
        await reader.read()

    async with fake_broker(handle) as url:
        with pytest.raises(BusError, match=f"^the broker at {url} refused us: not authorized$"):
            await MqttBus.connect(url, client_id="a", wait=wait)


async def test_a_refusal_after_a_reconnect_ends_the_events_with_its_reason() -> None:
    answers = iter([_CONNACK5, _CONNACK5, _NOT_AUTHORIZED5])

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_packet(reader)
        writer.write(answer := next(answers))
        if answer == _NOT_AUTHORIZED5:
            await reader.read()

    async with fake_broker(handle) as url:
        bus = await MqttBus.connect(url, client_id="a", wait=False)
        with pytest.raises(BusError, match="refused us: not authorized"):
            await until(bus, Delivery)
        with pytest.raises(BusError, match="refused us: not authorized"):
            await bus.publish("a", b"", retain=False)
        await bus.close()


async def test_what_many_buses_want_to_know_of_a_broker_takes_one_connection_more() -> None:
    num_connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_connections
        num_connections += 1
        await read_packet(reader)
        writer.write(_CONNACK5)
        await reader.read()

    once = partial(SharedFindings().once, "version")
    async with fake_broker(handle) as url:
        buses = await asyncio.gather(
            *(MqttBus.connect(url, client_id=f"{n}", wait=False, once=once) for n in range(5))
        )
        for bus in buses:
            await bus.close()
    assert num_connections == 1 + len(buses)


async def test_no_more_is_unacknowledged_than_the_broker_asked_for() -> None:
    bursts: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_packet(reader)
        writer.write(_RECEIVE_MAXIMUM_2)
        while True:
            burst = await reader.read(65536)
            num_publishes = burst.count(b"one topic")
            if not num_publishes:
                return
            bursts.append(num_publishes)
            for mid in range(sum(bursts) - num_publishes, sum(bursts)):
                writer.write(b"\x40\x02" + (mid + 1).to_bytes(2))

    async with fake_broker(handle) as url:
        bus = await MqttBus.connect(url, client_id="a", wait=False)
        await asyncio.gather(*(bus.publish("one topic", b"", retain=False) for _ in range(9)))
        await bus.close()
    assert sum(bursts) == 9
    assert max(bursts) <= 2


async def test_a_message_that_always_breaks_the_connection_is_given_up() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_packet(reader)
        writer.write(_CONNACK5)
        await read_packet(reader)

    async with fake_broker(handle) as url:
        bus = await MqttBus.connect(url, client_id="a", wait=False)
        with pytest.raises(BusError, match=r"2000 bytes on big: the connection broke at once"):
            await bus.publish("big", bytes(2000), retain=False)
        await bus.close()


@pytest.mark.parametrize(("num_bytes", "after_s"), [(100, 0.0), (2000, 1.1)])
async def test_a_link_that_breaks_again_and_again_is_no_fault_of_a_message(
    num_bytes: int, after_s: float
) -> None:
    """It is too small to be refused, or would have been refused before."""
    num_breaks = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_breaks
        await read_packet(reader)
        writer.write(_CONNACK5)
        kind, _ = await read_packet(reader)
        if kind != 3:
            return  # The question for the version.
        if num_breaks < 4:
            num_breaks += 1
            await asyncio.sleep(after_s)
            return
        writer.write(b"\x40\x02\x00\x01")
        await reader.read()

    async with fake_broker(handle) as url:
        bus = await MqttBus.connect(url, client_id="a", wait=False)
        await bus.publish("a", bytes(num_bytes), retain=False)
        await bus.close()
    assert num_breaks == 4


async def test_what_is_not_mqtt_ends_the_connection_and_nothing_else() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_packet(reader)
        writer.write(_CONNACK5)
        if (await reader.read(1)) == b"\x32":  # a PUBLISH, so not the question for the version
            writer.write(b"\x32\x03\xff\xff\x00")
            await reader.read()

    async with fake_broker(handle) as url:
        bus = await MqttBus.connect(url, client_id="a", wait=False)
        publish = asyncio.ensure_future(bus.publish("a", b"", retain=False))
        await until(bus, Disconnected)
        await until(bus, Connected)
        await bus.close()
        with pytest.raises(BusError, match="closed"):
            await publish


async def test_mqtt_5_is_spoken_where_the_broker_does(mosquitto_url: str, amqtt_url: str) -> None:
    async with (
        await MqttBus.connect(mosquitto_url, client_id="a", wait=False) as through_mosquitto,
        await MqttBus.connect(amqtt_url, client_id="a", wait=False) as through_amqtt,
    ):
        assert through_mosquitto.mqtt_version == "5"
        assert through_amqtt.mqtt_version == "3.1.1"


async def test_what_the_broker_would_not_accept_is_not_sent(mosquitto_url: str) -> None:
    async with await MqttBus.connect(mosquitto_url, client_id="a", wait=False) as bus:
        assert bus.max_payload_bytes == 33_554_432 - 1024
        with pytest.raises(BusError, match="the broker accepts at most 33553408"):
            await bus.publish("a", bytes(bus.max_payload_bytes + 1), retain=False)


async def test_a_topic_with_a_wildcard_cannot_be_published(mosquitto_url: str) -> None:
    async with await MqttBus.connect(mosquitto_url, client_id="a", wait=False) as bus:
        with pytest.raises(BusError, match="wildcards"):
            await bus.publish("a/+", b"", retain=False)


async def test_a_second_client_with_the_same_id_throws_the_first_out(
    mosquitto_url: str, site: str
) -> None:
    async with await MqttBus.connect(mosquitto_url, client_id=site, wait=False) as first:
        async with await MqttBus.connect(mosquitto_url, client_id=site, wait=False):
            await until(first, Disconnected)
        await until(first, Connected)


async def test_the_reason_that_the_broker_gives_for_a_disconnect_is_passed_on() -> None:
    num_connections = iter(range(100))

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_packet(reader)
        writer.write(_CONNACK5)
        if next(num_connections) == 1:  # the first only asks for the version
            writer.write(_TAKEN_OVER5)
        await reader.read()

    async with fake_broker(handle) as url:
        bus = await MqttBus.connect(url, client_id="a", wait=False)
        assert await until(bus, Disconnected) == Disconnected("session taken over")
        await bus.close()


def test_the_fast_client_fits_the_installed_paho() -> None:
    assert client_class() is FastClient
