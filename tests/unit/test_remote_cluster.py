"""A cluster whose devices answer, or do not, message by message."""

from collections.abc import AsyncIterator, Mapping

import numpy as np
import pytest

from edge_coordinator.cluster import Member, RemoteCluster
from edge_coordinator.conversation import Conversation, Tolerance
from edge_coordinator.metering import MeteredCluster
from runtime.bus import Delivery
from runtime.memory import MemoryBroker
from runtime.message_types import Message
from runtime.messages import Refused
from runtime.tensors import Frame, FrameKind
from tests.turn import (
    BATCH,
    CHUNK_BYTES,
    JOIN,
    READY,
    RUN,
    STATUS,
    TOPICS,
    device_side,
    sent,
    smashed_data,
    step_at,
)

ONE_EPOCH = JOIN.model_copy(update={"local_epochs": 1})


class Devices:
    """Plays the devices `d0` and `d1` to one cluster."""

    def __init__(self, conversation: Conversation) -> None:
        self._hearing = conversation.hearing
        for device in ("d0", "d1"):
            self._say(TOPICS.status(device), STATUS)
            conversation.registry.note_ready(device, READY)
        self.cluster = RemoteCluster(
            conversation,
            [Member(device, READY, BATCH) for device in ("d0", "d1")],
            joins=dict.fromkeys(("d0", "d1"), ONE_EPOCH),
            smashed_shape=(6, 14, 14),
            num_classes=10,
            quorum=0.5,
        )

    def send_smashed(self, device: str) -> None:
        frame = Frame(FrameKind.SMASHED, step_at(0), smashed_data(1))
        self._say(TOPICS.up(device, "smashed"), frame)

    def send_weights(self, device: str) -> None:
        frame = Frame(FrameKind.WEIGHTS, step_at(0), device_side())
        self._say(TOPICS.up(device, "weights"), frame)

    def leave(self, device: str) -> None:
        self._say(TOPICS.up(device, "reply"), Refused(run=RUN, reason="has had enough"))

    def _say(self, topic: str, what: Message | Frame) -> None:
        for original in sent(topic, what):
            payload = memoryview(original.payload)
            self._hearing.receive(Delivery(original.topic, payload, retained=False))


@pytest.fixture
async def devices() -> AsyncIterator[Devices]:
    async with MemoryBroker().connect("coordinator") as bus:
        yield Devices(
            Conversation(
                bus,
                TOPICS,
                run=RUN,
                tolerance=Tolerance(60, 15, max_unusable=10),
                chunk_bytes=CHUNK_BYTES,
                on_other=lambda _: None,
                on_connected=lambda: None,
            )
        )


def _gradients(*devices: str) -> Mapping[str, np.ndarray]:
    return {device: smashed_data(index)[0] for index, device in enumerate(devices)}


async def test_who_is_lost_at_its_last_answer_has_not_come_to_the_end_of_the_turn(
    devices: Devices,
) -> None:
    metered = MeteredCluster(devices.cluster)
    await metered.load(device_side())
    devices.send_smashed("d0")
    devices.send_smashed("d1")
    await metered.forward()
    await metered.backward(_gradients("d0", "d1"))
    devices.send_weights("d0")
    devices.leave("d1")
    await metered.weights()
    times = metered.finish()
    assert times.devices == ("d0",)
    assert {device: len(answers) for device, answers in times.answers_s.items()} == {
        "d0": 2,
        "d1": 1,
    }
