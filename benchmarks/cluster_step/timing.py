"""Watching a run from outside: when frames pass the bus, when the server works, who has a core."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Protocol, TypeVar

from edge_coordinator.training.algorithm import ServerStep, Smashed
from edge_coordinator.training.turn import Turn
from runtime.bus.bus import Bus, BusEvent, Delivery
from runtime.errors import MalformedMessageError
from runtime.wire.chunks.inbox import leaf_of
from runtime.wire.frames import CHUNK_HEADER, FrameKind, Tensor
from runtime.wire.published import DeviceMetrics
from runtime.wire.topics import Topics

Result = TypeVar("Result")


class Do(Protocol):
    """Something that gets work done: here and now, or in a thread."""

    def __call__(self, work: Callable[[], Result], /) -> Awaitable[Result]:
        """Do the work."""
        ...


async def do_here(work: Callable[[], Result]) -> Result:
    """Do the work in this thread."""
    return work()


class TimedEdge:
    """A turn of the edge model that notes when each server step began and ended."""

    def __init__(self, turn: Turn, do: Do) -> None:
        self._turn = turn
        self._do = do
        self.began_s: list[float] = []
        self.ended_s: list[float] = []

    async def device_side(self) -> Sequence[Tensor]:
        """Give the device-side model."""
        return await self._do(self._turn.device_side)

    async def step(self, smashed: Mapping[str, Smashed]) -> ServerStep:
        """Forward, loss, backward, update of the server-side model."""

        def timed() -> ServerStep:
            self.began_s.append(perf_counter())
            step = self._turn.step(smashed)
            self.ended_s.append(perf_counter())
            return step

        return await self._do(timed)

    async def aggregate(
        self, weights: Mapping[str, Sequence[Tensor]], sample_counts: Mapping[str, int]
    ) -> None:
        """Take over what becomes of the devices' models."""
        await self._do(lambda: self._turn.aggregate(weights, sample_counts))


class TimedBus:
    """A bus that notes when frames leave and arrive; keeps `runtime.bus.bus.Bus`."""

    def __init__(self, bus: Bus, topics: Topics) -> None:
        self._bus = bus
        self._topics = topics
        self.gradient_left_s: dict[tuple[str, int], float] = {}
        """When the first chunk of a gradient was handed over, by device and local epoch."""
        self.smashed_came_s: dict[tuple[str, int], float] = {}
        """When the last chunk of smashed data was taken in, by device and local epoch."""
        self.metrics: dict[str, DeviceMetrics] = {}
        """What the agents said of the turn."""
        self.metrics_came = asyncio.Event()
        self.wire_bytes: Counter[FrameKind] = Counter()
        self.num_frames: Counter[FrameKind] = Counter()

    @property
    def max_payload_bytes(self) -> int:
        """The largest payload that the broker is known to accept."""
        return self._bus.max_payload_bytes

    async def publish(
        self, topic: str, payload: bytes | bytearray | memoryview, *, retain: bool
    ) -> None:
        """Publish at QoS 1."""
        chunk = self._chunk(topic, payload)
        device = self._topics.parse(topic)
        if chunk is not None and device is not None:
            self.gradient_left_s.setdefault((device.device, chunk.epoch), perf_counter())
        await self._bus.publish(topic, payload, retain=retain)

    async def subscribe(self, topic_filter: str) -> None:
        """Subscribe."""
        await self._bus.subscribe(topic_filter)

    async def unsubscribe(self, topic_filter: str) -> None:
        """Undo `subscribe`."""
        await self._bus.unsubscribe(topic_filter)

    async def events(self) -> AsyncIterator[BusEvent]:
        """Everything that arrives."""
        async for event in self._bus.events():
            if isinstance(event, Delivery):
                self._note(event)
            yield event

    def forget(self) -> None:
        """Begin a turn."""
        self.gradient_left_s.clear()
        self.smashed_came_s.clear()
        self.metrics.clear()

    def _note(self, delivery: Delivery) -> None:
        topic = self._topics.parse(delivery.topic)
        if topic is None:
            return
        if topic.leaf == "metrics":
            self.metrics[topic.device] = DeviceMetrics.decode(delivery.payload)
            self.metrics_came.set()
        chunk = self._chunk(delivery.topic, delivery.payload)
        if chunk is not None and chunk.kind is FrameKind.SMASHED:
            self.smashed_came_s[topic.device, chunk.epoch] = perf_counter()

    def _chunk(self, topic: str, payload: bytes | bytearray | memoryview) -> "_Head | None":
        """Read a chunk's place from its header and count its bytes; None for what is no chunk."""
        leaf = topic.rpartition("/")[2]
        if leaf not in _LEAVES:
            return None
        if len(payload) < CHUNK_HEADER.size:
            raise MalformedMessageError(f"{len(payload)} bytes on {topic}")
        _, _, kind, _, _, _, epoch, index, *_ = CHUNK_HEADER.unpack_from(payload)
        head = _Head(FrameKind(kind), epoch)
        self.wire_bytes[head.kind] += _packet_bytes(topic, len(payload))
        self.num_frames[head.kind] += index == 0
        return head


@dataclass(frozen=True)
class _Head:
    kind: FrameKind
    epoch: int


_LEAVES = frozenset(leaf_of(kind) for kind in FrameKind)


def _packet_bytes(topic: str, payload_bytes: int) -> int:
    """Length of an MQTT 5 PUBLISH at QoS 1 without properties."""
    rest = 2 + len(topic.encode()) + 2 + 1 + payload_bytes
    length_bytes = max(1, -(-rest.bit_length() // 7))
    return 1 + length_bytes + rest


@dataclass(frozen=True)
class CoreTime:
    """Seconds on a core, and seconds ready to run while others had it."""

    ran_s: float = 0.0
    waited_s: float = 0.0

    def __add__(self, other: "CoreTime") -> "CoreTime":
        return CoreTime(self.ran_s + other.ran_s, self.waited_s + other.waited_s)

    def __sub__(self, other: "CoreTime") -> "CoreTime":
        return CoreTime(self.ran_s - other.ran_s, self.waited_s - other.waited_s)


CoreTimes = dict[str, CoreTime]


def read_core_times(processes: Mapping[str, Iterable[int]]) -> CoreTimes:
    """Core time of named groups of processes so far, event loops and other threads apart.

    The main thread runs the event loop in all of ours. Empty where the system does not tell.
    """
    times: CoreTimes = {}
    for name, pids in processes.items():
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                is_loop = task.parent.name == str(pid)
                key = f"{name}, {'event loop' if is_loop else 'compute thread'}"
                ran_ns, waited_ns, _ = task.read_text(encoding="ascii").split()
                spent = CoreTime(int(ran_ns) / 1e9, int(waited_ns) / 1e9)
                times[key] = times.get(key, CoreTime()) + spent
    return times
