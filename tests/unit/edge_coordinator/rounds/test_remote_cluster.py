"""A cluster whose devices answer, or do not, message by message."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.devices.registry import DeviceRecord
from edge_coordinator.devices.tolerance import Tolerance
from edge_coordinator.rounds.members import Member, Members
from edge_coordinator.rounds.remote_cluster import RemoteCluster
from edge_coordinator.training.cuts import ALIKE
from runtime.bus.bus import Delivery
from runtime.bus.memory_bus import MemoryBroker, MemoryBus
from runtime.protocol.coordinator_events import BusBack, BusLost
from runtime.wire.chunks.inbox import FrameInbox
from runtime.wire.chunks.questions import Holding
from runtime.wire.commands import Refused
from runtime.wire.fields import Message
from runtime.wire.frames import Frame, FrameKind, Tensor, specs_of
from tests.turn import (
    BATCH,
    CHUNK_BYTES,
    CLUSTER,
    JOIN,
    JOINED,
    READY,
    ROUND,
    RUN,
    STATUS,
    TOPICS,
    device_side,
    sent,
    smashed_data,
    step_at,
)

if TYPE_CHECKING:
    from _collections_abc import dict_items, dict_values

ONE_EPOCH = JOIN.model_copy(update={"local_epochs": 1})


class CountedRecords(dict[str, DeviceRecord]):
    """Counts how often all devices of a site are gone through."""

    num_walks = 0

    def __iter__(self) -> Iterator[str]:
        self.num_walks += 1
        return super().__iter__()

    def values(self) -> "dict_values[str, DeviceRecord]":
        self.num_walks += 1
        return super().values()

    def items(self) -> "dict_items[str, DeviceRecord]":
        self.num_walks += 1
        return super().items()


class Devices:
    """Plays the devices `d0` and `d1` to one cluster."""

    def __init__(self, channel: DeviceChannel, listening: MemoryBus) -> None:
        self.registry = channel.registry
        self._inbound = channel.inbound
        self.channel = channel
        self._listening = listening
        for device in ("d0", "d1"):
            self._say(TOPICS.status(device), STATUS)
            channel.registry.note_ready(device, READY)
        members = [Member(device, READY, BATCH, (6, 14, 14)) for device in ("d0", "d1")]
        self.cluster = RemoteCluster(
            channel,
            Members(members, dict.fromkeys(("d0", "d1"), ONE_EPOCH), quorum=0.5),
            parts=ALIKE,
            num_classes=10,
            seed=0,
            rate_by_size=True,
        )

    async def join(self) -> None:
        """Have both take part in the turn."""
        joining = asyncio.create_task(self.cluster.join())
        for _ in range(5):  # Until both have been asked.
            await asyncio.sleep(0)
        assert len(self.channel.replies) == 2
        for device in ("d0", "d1"):
            self._say(TOPICS.reply(device), JOINED)
        await joining

    def send_smashed(self, device: str) -> None:
        frame = Frame(FrameKind.SMASHED, step_at(0), smashed_data(1))
        self._say(TOPICS.up(device, "smashed"), frame)

    def send_weights(self, device: str) -> None:
        frame = Frame(FrameKind.WEIGHTS, step_at(0), device_side())
        self._say(TOPICS.up(device, "weights"), frame)

    async def gradient(self) -> Tensor:
        """Receive the next gradient of `d0`, whole."""
        inbox = FrameInbox(lambda *_: specs_of(smashed_data(0)[:1]))
        async for event in self._listening.events():
            if isinstance(event, Delivery):
                frame = inbox.feed(event.payload, kind=FrameKind.GRADIENT)
                if frame is not None:
                    return frame.tensors[0]
        raise AssertionError

    def lack_gradient(self, device: str) -> None:
        """Say that nothing of the gradient has come, when asked after a broken connection."""
        for event in (BusLost(), BusBack()):
            self.channel.peers.tell_all(event)
        held = Holding(
            run=RUN, round=ROUND, cluster=CLUSTER, epoch=0,
            request="gradient", number=1, state="receiving",
        )  # fmt: skip
        self._say(TOPICS.reply(device), held)

    def answer_again(self, device: str) -> None:
        """Say once more that it is ready, which is nothing new."""
        self._say(TOPICS.reply(device), READY)

    def leave(self, device: str) -> None:
        self._say(TOPICS.reply(device), Refused(run=RUN, reason="has had enough"))

    def _say(self, topic: str, what: Message | Frame) -> None:
        for original in sent(topic, what):
            payload = memoryview(original.payload)
            self._inbound.receive(Delivery(original.topic, payload, retained=False))


@pytest.fixture
async def devices() -> AsyncIterator[Devices]:
    broker = MemoryBroker()
    async with broker.connect("coordinator") as bus, broker.connect("d0") as listening:
        await listening.subscribe(TOPICS.down("d0", "gradient"))
        devices = Devices(
            DeviceChannel(
                bus,
                TOPICS,
                run=RUN,
                tolerance=Tolerance(60, 15, max_unusable=10),
                chunk_bytes=CHUNK_BYTES,
            ),
            listening,
        )
        await devices.join()
        yield devices


def _gradients(*devices: str) -> Mapping[str, np.ndarray]:
    return {device: smashed_data(index)[0] for index, device in enumerate(devices)}


async def test_who_is_lost_at_its_last_answer_has_not_come_to_the_end_of_the_turn(
    devices: Devices,
) -> None:
    cluster = devices.cluster
    await cluster.load(device_side())
    devices.send_smashed("d0")
    devices.send_smashed("d1")
    await cluster.forward()
    await cluster.backward(_gradients("d0", "d1"), None)
    devices.send_weights("d0")
    devices.leave("d1")
    await cluster.weights()
    assert cluster.finished == ("d0",)
    num_answers = {device: len(answers) for device, answers in cluster.answers_s.items()}
    assert num_answers == {"d0": 2, "d1": 1}


async def test_gradients_make_up_for_a_rate_that_counts_on_devices_that_are_lost(
    devices: Devices,
) -> None:
    await devices.cluster.load(device_side())
    devices.send_smashed("d0")
    devices.leave("d1")
    assert list(await devices.cluster.forward()) == ["d0"]
    gradients = _gradients("d0")
    await devices.cluster.backward(gradients, None)
    first = await devices.gradient()
    assert first.tobytes() == (gradients["d0"] / 2).tobytes()
    devices.lack_gradient("d0")
    gathering = asyncio.create_task(devices.cluster.weights())
    assert (await devices.gradient()).tobytes() == first.tobytes()
    devices.send_weights("d0")
    await gathering


async def test_gradients_of_a_whole_cluster_travel_as_they_are(devices: Devices) -> None:
    await devices.cluster.load(device_side())
    devices.send_smashed("d0")
    devices.send_smashed("d1")
    await devices.cluster.forward()
    gradients = _gradients("d0", "d1")
    await devices.cluster.backward(gradients, None)
    assert (await devices.gradient()).tobytes() == gradients["d0"].tobytes()


async def test_no_message_of_a_turn_goes_through_all_devices_of_the_site(devices: Devices) -> None:
    records = devices.registry.records = CountedRecords(devices.registry.records)
    await devices.join()
    await devices.cluster.load(device_side())
    devices.send_smashed("d0")
    devices.send_smashed("d1")
    await devices.cluster.forward()
    await devices.cluster.backward(_gradients("d0", "d1"), None)
    devices.send_weights("d0")
    devices.answer_again("d0")
    devices.leave("d1")
    await devices.cluster.weights()
    assert records.num_walks == 0
    assert list(devices.registry.ready) == ["d0"]
    assert records.num_walks == 1
