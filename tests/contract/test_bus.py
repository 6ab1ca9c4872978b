"""What every bus does: in memory, through mosquitto and through amqtt."""

import asyncio
from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

import pytest

from runtime.bus.bus import Bus, Connected, Delivery, Disconnected, Will
from runtime.errors import BusError, SettingsError

if TYPE_CHECKING:
    from tests.contract.conftest import Wire


async def _take(bus: Bus, num_deliveries: int) -> list[Delivery]:
    """Return the next deliveries."""
    taken: list[Delivery] = []
    async for event in bus.events():
        if isinstance(event, Delivery):
            taken.append(event)
        if len(taken) == num_deliveries:
            break
    return taken


async def _until(bus: Bus, kind: type[Connected] | type[Disconnected]) -> None:
    """Wait for an event of that kind."""
    async for event in bus.events():
        if isinstance(event, kind):
            return


def _payloads(deliveries: Iterable[Delivery]) -> list[bytes]:
    return [bytes(delivery.payload) for delivery in deliveries]


async def test_the_first_event_is_connected(wire: "Wire") -> None:
    bus = await wire.connect("a")
    assert await anext(bus.events()) == Connected()


async def test_a_subscriber_gets_what_is_published(wire: "Wire", site: str) -> None:
    sender, receiver = await wire.connect("sender"), await wire.connect("receiver")
    await receiver.subscribe(f"{site}/news")
    await sender.publish(f"{site}/other", b"not subscribed to", retain=False)
    await sender.publish(f"{site}/news", bytearray(b"one"), retain=False)
    await sender.publish(f"{site}/news", memoryview(b"two"), retain=False)
    first, second = await _take(receiver, 2)
    assert (first.topic, bytes(first.payload), first.retained) == (f"{site}/news", b"one", False)
    assert bytes(second.payload) == b"two"


async def test_a_client_gets_its_own_messages(wire: "Wire", site: str) -> None:
    bus = await wire.connect("a")
    await bus.subscribe(site)
    await bus.publish(site, b"", retain=False)
    assert _payloads(await _take(bus, 1)) == [b""]


async def test_plus_stands_for_one_level_and_hash_for_all_that_are_left(
    wire: "Wire", site: str
) -> None:
    bus = await wire.connect("a")
    await bus.subscribe(f"{site}/+/up")
    await bus.subscribe(f"{site}/all/#")
    for level in ("x/up", "x/y/up", "x/down", "all", "all/1/2", "y/up"):
        await bus.publish(f"{site}/{level}", b"", retain=False)
    topics = [delivery.topic.removeprefix(f"{site}/") for delivery in await _take(bus, 4)]
    assert topics == ["x/up", "all", "all/1/2", "y/up"]


@pytest.mark.parametrize("topic_filter", ["", "a/#/b", "a+", "a/b#"])
async def test_a_filter_that_is_none_is_refused(wire: "Wire", topic_filter: str) -> None:
    bus = await wire.connect("a")
    with pytest.raises(SettingsError, match="topic filter"):
        await bus.subscribe(topic_filter)


async def test_a_retained_message_waits_for_its_subscriber(wire: "Wire", site: str) -> None:
    sender = await wire.connect("sender")
    await sender.publish(f"{site}/profile", b"old", retain=True)
    await sender.publish(f"{site}/profile", b"new", retain=True)
    receiver = await wire.connect("receiver")
    await receiver.subscribe(f"{site}/+")
    (retained,) = await _take(receiver, 1)
    await sender.publish(f"{site}/profile", b"live", retain=True)
    (live,) = await _take(receiver, 1)
    assert (bytes(retained.payload), retained.retained) == (b"new", True)
    assert (bytes(live.payload), live.retained) == (b"live", False)


async def test_an_empty_retained_message_clears_the_topic(wire: "Wire", site: str) -> None:
    bus, late = await wire.connect("a"), await wire.connect("late")
    await bus.subscribe(f"{site}/#")
    await bus.publish(f"{site}/profile", b"old", retain=True)
    await bus.publish(f"{site}/profile", b"", retain=True)
    assert _payloads(await _take(bus, 2)) == [b"old", b""]
    await late.subscribe(f"{site}/#")
    await bus.publish(f"{site}/end", b"", retain=False)
    assert [delivery.topic for delivery in await _take(late, 1)] == [f"{site}/end"]


async def test_a_lost_connection_publishes_the_will(wire: "Wire", site: str) -> None:
    watcher = await wire.connect("watcher")
    await watcher.subscribe(f"{site}/status")
    await wire.connect("device", will=Will(f"{site}/status", b"offline"))
    wire.cut("device")
    assert _payloads(await _take(watcher, 1)) == [b"offline"]
    late = await wire.connect("late")
    await late.subscribe(f"{site}/status")
    assert [delivery.retained for delivery in await _take(late, 1)] == [True]


async def test_a_client_that_closes_leaves_no_will(wire: "Wire", site: str) -> None:
    watcher = await wire.connect("watcher")
    await watcher.subscribe(f"{site}/#")
    device = await wire.connect("device", will=Will(f"{site}/status", b"offline"))
    await device.publish(f"{site}/status", b"leaving", retain=False)
    await device.close()
    await watcher.publish(f"{site}/end", b"end", retain=False)
    assert _payloads(await _take(watcher, 2)) == [b"leaving", b"end"]


async def test_messages_on_one_topic_keep_their_order(wire: "Wire", site: str) -> None:
    sender, receiver = await wire.connect("sender"), await wire.connect("receiver")
    await receiver.subscribe(f"{site}/+")
    numbers = [b"%d" % number for number in range(50)]
    async with asyncio.TaskGroup() as tasks:
        for number in numbers:
            tasks.create_task(sender.publish(f"{site}/a", number, retain=False))
            tasks.create_task(sender.publish(f"{site}/b", number, retain=False))
    taken = sorted(await _take(receiver, 100), key=lambda delivery: delivery.topic)
    for _, deliveries in groupby(taken, key=lambda delivery: delivery.topic):
        assert _payloads(deliveries) == numbers


async def test_nothing_arrives_after_unsubscribe(wire: "Wire", site: str) -> None:
    bus = await wire.connect("a")
    await bus.subscribe(f"{site}/a")
    await bus.subscribe(f"{site}/b")
    await bus.unsubscribe(f"{site}/a")
    await bus.publish(f"{site}/a", b"", retain=False)
    await bus.publish(f"{site}/b", b"", retain=False)
    assert [delivery.topic for delivery in await _take(bus, 1)] == [f"{site}/b"]


async def test_three_megabytes_arrive_whole(wire: "Wire", site: str) -> None:
    sender, receiver = await wire.connect("sender"), await wire.connect("receiver")
    await receiver.subscribe(site)
    payload = bytes(range(256)) * 12_000
    assert sender.max_payload_bytes > len(payload)
    await sender.publish(site, payload, retain=False)
    (delivery,) = await _take(receiver, 1)
    assert delivery.payload == payload
    assert delivery.payload.readonly


async def test_many_publishes_at_once_all_arrive(wire: "Wire", site: str) -> None:
    sender, receiver = await wire.connect("sender"), await wire.connect("receiver")
    await receiver.subscribe(site)
    payload = bytes(10_000)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(500):
            tasks.create_task(sender.publish(site, payload, retain=False))
        taken = tasks.create_task(_take(receiver, 500))
    assert all(delivery.payload == payload for delivery in taken.result())


async def test_after_a_lost_connection_every_subscription_is_in_force_again(
    wire: "Wire", site: str
) -> None:
    sender, receiver = await wire.connect("sender"), await wire.connect("receiver")
    await receiver.subscribe(f"{site}/a")
    await receiver.subscribe(f"{site}/b")
    wire.cut("receiver")
    await _until(receiver, Disconnected)
    wire.restore("receiver")
    await _until(receiver, Connected)
    await sender.publish(f"{site}/a", b"a", retain=False)
    await sender.publish(f"{site}/b", b"b", retain=False)
    assert _payloads(await _take(receiver, 2)) == [b"a", b"b"]


async def test_what_was_retained_meanwhile_arrives_after_connected(wire: "Wire", site: str) -> None:
    sender, receiver = await wire.connect("sender"), await wire.connect("receiver")
    await receiver.subscribe(site)
    wire.cut("receiver")
    await _until(receiver, Disconnected)
    await sender.publish(site, b"meanwhile", retain=True)
    wire.restore("receiver")
    events = receiver.events()
    assert await anext(events) == Connected()
    delivery = await anext(events)
    assert isinstance(delivery, Delivery)
    assert (bytes(delivery.payload), delivery.retained) == (b"meanwhile", True)


async def test_a_publish_without_a_connection_waits_for_one(wire: "Wire", site: str) -> None:
    sender, receiver = await wire.connect("sender"), await wire.connect("receiver")
    await receiver.subscribe(site)
    wire.cut("sender")
    await _until(sender, Disconnected)
    async with asyncio.TaskGroup() as tasks:
        for number in range(30):
            tasks.create_task(sender.publish(site, b"%d" % number, retain=False))
        await asyncio.sleep(0)
        wire.restore("sender")
    assert _payloads(await _take(receiver, 30)) == [b"%d" % number for number in range(30)]


async def test_publishes_that_a_cut_interrupts_are_sent_again(wire: "Wire", site: str) -> None:
    sender, receiver = await wire.connect("sender"), await wire.connect("receiver")
    await receiver.subscribe(site)
    payloads = [b"%03d" % number + bytes(100_000) for number in range(60)]
    with_the_broker: list[bytes] = []

    async def publish(payload: bytes) -> None:
        await sender.publish(site, payload, retain=False)
        with_the_broker.append(payload[:3])

    async with asyncio.TaskGroup() as tasks:
        for payload in payloads:
            tasks.create_task(publish(payload))
        await _take(receiver, 5)
        acknowledged = set(with_the_broker)
        wire.cut("sender")
        wire.restore("sender")
    await sender.publish(site, b"end", retain=False)
    arrived = {b"%03d" % number for number in range(5)}
    async for event in receiver.events():
        if isinstance(event, Delivery):
            if bytes(event.payload) == b"end":
                break
            arrived.add(bytes(event.payload[:3]))
    # What a broker has acknowledged it may still lose, as amqtt does when a connection breaks.
    assert arrived | acknowledged == {payload[:3] for payload in payloads}


async def test_a_closed_bus_ends_its_events_and_refuses_calls(wire: "Wire", site: str) -> None:
    bus = await wire.connect("a")
    await bus.close()
    await bus.close()
    assert [event async for event in bus.events()] == []
    with pytest.raises(BusError, match="closed"):
        await bus.publish(site, b"", retain=False)
    with pytest.raises(BusError, match="closed"):
        await bus.subscribe(site)


async def test_closing_releases_those_who_wait(wire: "Wire", site: str) -> None:
    bus = await wire.connect("a")
    wire.cut("a")
    await _until(bus, Disconnected)
    waiting = [
        asyncio.ensure_future(bus.publish(site, b"", retain=False)),
        asyncio.ensure_future(bus.subscribe(site)),
        asyncio.ensure_future(_until(bus, Connected)),
    ]
    await asyncio.sleep(0)
    await bus.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [BusError, BusError, type(None)]
