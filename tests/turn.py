"""The messages of one device's turn, as they are really sent."""

from dataclasses import dataclass

import numpy as np

from runtime.bus.bus import Delivery
from runtime.bus.memory_bus import MemoryBus
from runtime.protocol.coordinator_events import FrameRequest
from runtime.wire.chunks.inbox import FrameInbox
from runtime.wire.commands import Assignment, Join, Joined, OptimizerSpec, Ready
from runtime.wire.control import decode_reply
from runtime.wire.fields import Message
from runtime.wire.frames import Frame, FrameKind, StepId, Tensor, encode_chunks, specs_of
from runtime.wire.published import DeviceProfile, DeviceStatus
from runtime.wire.topics import Topics

RUN, ROUND, CLUSTER, CUT, BATCH = 7, 3, 1, 3, 16
CHUNK_BYTES = 1000
TOPICS = Topics("default")
ASSIGNMENT = Assignment(
    run=RUN,
    network="lenet",
    options={},
    loss="cross_entropy",
    seed=0,
    batch_size=BATCH,
    held_out=0.0,
    max_evaluation_samples=10,
    num_classes=10,
    optimizer=OptimizerSpec(momentum=0.9),
    carry_state=True,
)
JOIN = Join(
    run=RUN,
    round=ROUND,
    cluster=CLUSTER,
    purpose="train",
    cut=CUT,
    local_epochs=2,
    learning_rate=0.05,
)
READY = Ready(run=RUN, num_samples=40, num_held_out=0, label_dtype="|u1", label_shape=())
JOINED = Joined(run=RUN, round=ROUND, cluster=CLUSTER)
STATUS = DeviceStatus(state="online", session="one", since_unix_s=1.0, engine="torch")
PROFILE = DeviceProfile(
    device="d0",
    engine="torch",
    machine="aarch64",
    num_cores=4,
    memory_bytes=2**32,
    free_memory_bytes=2**31,
    num_samples=40,
    sample_shape=(1, 28, 28),
    measured_at_unix_s=1.0,
)


@dataclass(frozen=True)
class Original:
    """A message as it is really sent."""

    topic: str
    payload: bytes

    @property
    def is_frame(self) -> bool:
        """Whether it is a chunk of a frame."""
        return self.topic.rsplit("/", 1)[1] in {kind.name.lower() for kind in FrameKind}


def step_at(epoch: int) -> StepId:
    """Which step of the turn it is."""
    return StepId(RUN, ROUND, CLUSTER, epoch)


def _floats(*shape: int, seed: int) -> Tensor:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def smashed_data(seed: int) -> tuple[Tensor, ...]:
    """Smashed data and labels of a mini-batch."""
    return _floats(BATCH, 6, 14, 14, seed=seed), np.arange(BATCH, dtype=np.uint8) % 10


def device_side() -> tuple[Tensor, ...]:
    """A device-side model as the coordinator hands it out: LeNet's, and its momentum."""
    shapes: list[tuple[int, ...]] = [(6, 1, 5, 5), (6,)]
    weights = [_floats(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    return (*weights, *(np.zeros_like(weight) for weight in weights))


def gradient_frame(epoch: int) -> Frame:
    """What comes back for an epoch's smashed data."""
    return Frame(FrameKind.GRADIENT, step_at(epoch), (_floats(BATCH, 6, 14, 14, seed=epoch),))


def sent(topic: str, what: Message | Frame) -> list[Original]:
    """A message, or the chunks of a frame, on a topic."""
    if isinstance(what, Message):
        return [Original(topic, what.encode())]
    return [Original(topic, payload) for payload in encode_chunks(what, chunk_bytes=CHUNK_BYTES)]


SPECS = {
    FrameKind.SMASHED: specs_of(smashed_data(0)),
    FrameKind.WEIGHTS: specs_of(device_side()),
}


def request(kind: FrameKind, step: StepId) -> FrameRequest:
    """Ask for a frame of this kind and step, as a cluster does."""
    asked = FrameKind.MODEL if kind is FrameKind.SMASHED else FrameKind.GRADIENT
    return FrameRequest(asked, step, kind, step, SPECS[kind])


class Peer:
    """Plays the coordinator to one agent."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self._inbox = FrameInbox(lambda kind, _: SPECS[kind])

    async def listen(self) -> None:
        """Hear what the device says; returns once it is there."""
        await self._bus.subscribe(TOPICS.every_device("reply"))
        await self._bus.subscribe(TOPICS.every_device("up/+"))
        await self._bus.subscribe(TOPICS.every_device("profile"))
        await self._next("profile")

    async def ask(self, leaf: str, what: Message | Frame) -> None:
        """Send a command or a frame, complete."""
        topic = TOPICS.command("d0") if leaf == "command" else TOPICS.down("d0", leaf)
        for original in sent(topic, what):
            await self._bus.publish(original.topic, original.payload, retain=False)

    async def reply(self) -> object:
        """The next control message."""
        return decode_reply((await self._next("reply")).payload)

    async def frame(self, kind: FrameKind) -> Frame:
        """The next frame, which must be of this kind."""
        while True:
            payload = (await self._next(f"up/{kind.name.lower()}")).payload
            frame = self._inbox.feed(payload, kind=kind)
            if frame is not None:
                return frame

    async def _next(self, leaf: str) -> Delivery:
        async for event in self._bus.events():
            if isinstance(event, Delivery) and event.topic.endswith(leaf):
                return event
        raise AssertionError(leaf)
