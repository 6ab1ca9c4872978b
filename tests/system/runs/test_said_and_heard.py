"""What programs say and hear in a run, beside what a fleet's access list lets them."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from device_agent.profiling.link_loopback import LoopBack
from edge_coordinator.fleet.rights import (
    coordinator_rights,
    device_rights,
)
from runtime.bus.bus import Will
from runtime.bus.memory_bus import MemoryBroker, MemoryBus
from runtime.bus.topic_filter import matches
from runtime.wire.run_control import WantedSettings
from runtime.wire.topics import Topics
from tests.builders import run_job
from tests.noise import shards
from tests.system.programs.inference_peers import client_of, served

TOPICS = Topics("default")


SETTINGS: dict[str, object] = {
    "model.name": "mlp",
    "plan.mode": "auto",
    "plan.clusters": 1,
    "training.rounds": 1,
    "plan.cut": "fc1",
    "training.phi": 0.5,
}


class Listener(MemoryBroker):
    """A broker that writes down who publishes and subscribes to what."""

    def __init__(self) -> None:
        super().__init__()
        self.published: dict[str, set[str]] = defaultdict(set)
        self.subscribed: dict[str, set[str]] = defaultdict(set)

    def connect(
        self, client_id: str, *, will: Will | None = None, max_payload_bytes: int = 2**20
    ) -> MemoryBus:
        bus = super().connect(client_id, will=will, max_payload_bytes=max_payload_bytes)
        publish, subscribe, user = bus.publish, bus.subscribe, client_id.partition("-")[0]

        async def note_publish(
            topic: str, payload: bytes | bytearray | memoryview, *, retain: bool
        ) -> None:
            self.published[user].add(topic)
            await publish(topic, payload, retain=retain)

        async def note_subscribe(topic_filter: str) -> None:
            self.subscribed[user].add(topic_filter)
            await subscribe(topic_filter)

        bus.publish, bus.subscribe = note_publish, note_subscribe  # type: ignore[method-assign]
        return bus


def _topics_heard(broker: Listener, user: str) -> Iterator[str]:
    said = set().union(*broker.published.values())
    return (
        topic for topic in said if any(matches(wanted, topic) for wanted in broker.subscribed[user])
    )


def _may(filters: tuple[str, ...], topic: str) -> bool:
    return any(matches(allowed, topic) for allowed in filters)


async def test_the_rights_of_each_program_are_what_it_uses_and_no_more() -> None:
    broker = Listener()
    async with broker.connect("people-1") as people:
        wanted = WantedSettings(settings={"threads": 1}).encode()
        await people.publish(TOPICS.settings("d0"), wanted, retain=True)
    await run_job(shards((20, 20), (1, 28, 28)), SETTINGS, broker=broker)
    async with broker.connect("d0-probe") as bus:
        await LoopBack("d0", bus, TOPICS, chunk_bytes=10_000).measure()
    async with served(broker, "coordinator-2"), client_of(broker, "d0") as client:
        await client.predict(np.zeros((1, 3), np.float32))
    rights = device_rights(TOPICS, "d0")
    assert broker.published["d0"] == set(rights.publish)
    assert all(_may(rights.hear, topic) for topic in _topics_heard(broker, "d0"))
    needed = [
        one for one in rights.hear if any(matches(one, t) for t in _topics_heard(broker, "d0"))
    ]
    assert needed == list(rights.hear)
    edge = coordinator_rights(TOPICS)
    assert all(_may(edge.publish, topic) for topic in broker.published["coordinator"])
    assert all(_may(edge.hear, topic) for topic in _topics_heard(broker, "coordinator"))
    others = set(broker.published["d1"]) | set(_topics_heard(broker, "d1"))
    own = {TOPICS.cluster_model(0), TOPICS.cluster_gradient(0)}
    assert not any(_may((*rights.publish, *rights.hear), topic) for topic in others - own)
