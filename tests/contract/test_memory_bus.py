"""The faults that the bus in memory shows on request."""

import asyncio

import numpy as np
import pytest

from runtime.bus.bus import BusEvent, Connected, Delivery, Disconnected
from runtime.bus.memory_bus import MemoryBroker, MemoryBus
from runtime.errors import BusError


async def _drain(bus: MemoryBus) -> list[BusEvent]:
    return [await anext(bus.events()) for _ in range(bus.num_waiting)]


async def _publish_to_three_topics(shuffle: np.random.Generator | None) -> list[tuple[str, int]]:
    bus = MemoryBroker(shuffle=shuffle).connect("a")
    await bus.subscribe("#")
    for number in range(10):
        for topic in "abc":
            await bus.publish(topic, bytes([number]), retain=False)
    events = await _drain(bus)
    return [(event.topic, event.payload[0]) for event in events if isinstance(event, Delivery)]


async def test_duplicating_delivers_every_message_twice() -> None:
    bus = MemoryBroker(duplicate=True).connect("a")
    await bus.publish("kept", b"", retain=False)
    await bus.publish("kept", b"retained", retain=True)
    await bus.subscribe("#")
    await bus.publish("live", b"", retain=False)
    _, *deliveries = await _drain(bus)
    topics = [delivery.topic for delivery in deliveries if isinstance(delivery, Delivery)]
    assert topics == ["kept", "kept", "live", "live"]


async def test_shuffling_keeps_the_order_of_each_topic_and_repeats_itself() -> None:
    plain = await _publish_to_three_topics(None)
    shuffled = await _publish_to_three_topics(np.random.default_rng(7))
    again = await _publish_to_three_topics(np.random.default_rng(7))
    assert shuffled == again
    assert shuffled != plain
    for topic in "abc":
        assert [number for name, number in shuffled if name == topic] == list(range(10))


async def test_a_broker_that_stops_forgets_what_was_retained() -> None:
    broker = MemoryBroker()
    bus = broker.connect("a")
    await bus.publish("kept", b"retained", retain=True)
    broker.stop()
    with pytest.raises(BusError, match="stopped"):
        bus.restore()
    broker.start()
    bus.restore()
    await bus.subscribe("#")
    assert await _drain(bus) == [Connected(), Disconnected("the broker stopped"), Connected()]


async def test_a_second_client_with_the_same_id_throws_the_first_out() -> None:
    broker = MemoryBroker()
    first = broker.connect("a")
    broker.connect("a")
    assert (await _drain(first))[-1] == Disconnected("session taken over")


async def test_a_message_above_the_limit_is_refused() -> None:
    bus = MemoryBroker().connect("a", max_payload_bytes=10)
    with pytest.raises(BusError, match="11 bytes on big: the broker accepts at most 10"):
        await bus.publish("big", bytes(11), retain=False)


async def test_publishing_lets_others_run() -> None:
    bus = MemoryBroker().connect("a")
    others = asyncio.ensure_future(asyncio.sleep(0, "ran"))
    await bus.publish("a", b"", retain=False)
    await bus.publish("a", b"", retain=False)
    assert others.done()
    assert bus.num_waiting == 1  # Connected
