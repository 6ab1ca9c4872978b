"""Sending to devices: what is asked of each, in chunks that its link carries in a moment."""

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping

from runtime.bus.bus import Bus
from runtime.protocol.coordinator_events import Asked, FrameRequest, SendParts
from runtime.protocol.frame_steps import offered_step, turn_of
from runtime.wire.chunks.inbox import leaf_of, numbers_of
from runtime.wire.chunks.transfer import ChunkSize, SendWindow, send_frame
from runtime.wire.commands import FrozenOffer, GraphsOffer, Join
from runtime.wire.control import SentCommand
from runtime.wire.frames import Frame, FrameKind, StepId, Tensor
from runtime.wire.published import DeviceMetrics
from runtime.wire.topics import Topics
from runtime.wire.versions import Incompatible, Versions

log = logging.getLogger(__name__)

Ranges = tuple[tuple[int, int], ...]
SentFunction = Callable[[str, FrameKind, StepId], None]


class Outbound:
    """Sends frames and control messages; keeps each device's last frame, to mend it."""

    def __init__(
        self, bus: Bus, topics: Topics, *, chunk_bytes: int, on_sent: SentFunction
    ) -> None:
        """`on_sent` hears which frame to which device is with the broker."""
        self.num_bytes = 0
        self.graphs: dict[str, tuple[Tensor, ...]] = {}
        self.joins: dict[str, Join] = {}
        """By device, what it was asked to join last."""
        self._bus = bus
        self._topics = topics
        self._chunk_bytes = chunk_bytes
        self._on_sent = on_sent
        self._sizes: dict[str, ChunkSize] = {}
        self._windows: defaultdict[str, SendWindow] = defaultdict(SendWindow)
        self._timed: set[str] = set()
        """Ids of devices that had a frame in several chunks: they can tell what that took."""
        self._frames: defaultdict[str, dict[int, tuple[Frame, int]]] = defaultdict(dict)
        """Device id to the last frame that it was sent of each micro-batch, and the size of its
        chunks."""
        self._told_lost: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] | None = None

    async def until_failed(self) -> None:
        """Raise what the first task failed with that nobody waits for."""
        self._failed = asyncio.get_running_loop().create_future()
        await self._failed

    def close(self) -> None:
        """Send no more."""
        for task in self._tasks:
            task.cancel()

    def settle(self, device: str, what: Asked, *, took_s: float | None) -> None:
        """Let go of a request's frames: the device has answered after so long, or is given up."""
        if not isinstance(what, FrameRequest):
            return
        asked = (what.kind, what.step)
        frames = self._frames[device]
        own = [place for place, (f, _) in frames.items() if (f.kind, f.step.first) == asked]
        settled = [frames.pop(place)[0] for place in own]
        if settled and took_s is None:
            self._sizes.pop(device, None)  # Its link may not be what it was.

    def learn(self, device: str, metrics: DeviceMetrics) -> None:
        """Take in how fast a device's link was in a turn, by when it had the chunks of its frames.

        How long its answers take tells less: in them it computes, and waits for others.
        """
        join = self.joins.get(device)
        if device not in self._timed or join is None or turn_of(metrics) != turn_of(join):
            return
        self._timed.discard(device)
        seconds = metrics.phases.distribute_s + join.local_epochs * metrics.phases.download_s
        self._size(device).learn(num_bytes=metrics.down_bytes, seconds=seconds)

    async def to_device(self, device: str, frame: Frame) -> None:
        """Send a frame to one device, behind those that are on their way to it."""
        chunk_bytes = self._chunk_bytes_of(device, frame)
        self._frames[device][frame.step.micro_batch] = (frame, chunk_bytes)
        await self._send(device, frame, chunk_bytes, ())

    async def to_cluster(self, devices: Mapping[str, object], frame: Frame) -> None:
        """Send a frame to all who listen to its cluster's topic, these devices."""
        sizes = [self._chunk_bytes_of(device, frame) for device in devices]
        chunk_bytes = min(sizes, default=self._chunk_bytes)
        for device in devices:
            self._frames[device][frame.step.micro_batch] = (frame, chunk_bytes)
        is_model = frame.kind is FrameKind.MODEL
        topic_of = self._topics.cluster_model if is_model else self._topics.cluster_gradient
        topic = topic_of(frame.step.cluster)
        sent = await send_frame(self._bus, topic, frame, chunk_bytes=chunk_bytes)
        self.num_bytes += sent
        for device in devices:
            self._on_sent(device, frame.kind, frame.step)

    async def command(self, device: str, message: SentCommand) -> None:
        """Send a control message."""
        topic = self._topics.command(device)
        await self._bus.publish(topic, message.encode(), retain=False)

    def start_command(self, device: str, message: SentCommand) -> None:
        """Send a control message in the background."""
        self._start(self.command(device, message), f"ask {device}")

    def start_farewell(self, device: str, version: str, why: str) -> None:
        """Tell a device of this version, which we cannot work with, as it understands it."""
        if Versions.read(version).newest > 1:
            self.start_command(device, Incompatible(version=str(Versions.own())))
            return
        # The first version knows no such message; it logs the kind of a command it does not know.
        topic, payload = self._topics.command_of_wire_1(device), json.dumps({"kind": why}).encode()
        self._start(self._bus.publish(topic, payload, retain=False), f"part with {device}")

    def start_parts(self, device: str, parts: SendParts) -> None:
        """Send in the background what is missing of the last frame; all of it if that is none."""
        frame, chunk_bytes = self._frames[device].get(parts.step.micro_batch, (None, 0))
        if frame is not None and (frame.kind, frame.step) == (parts.kind, parts.step):
            self._tell_lost(device, parts)
            mending = self._send(device, frame, chunk_bytes, parts.missing)
            self._start(mending, f"mend {device}")
        elif (offer := _offered(self.joins[device], parts.step)) is not None:
            tensors = self.graphs[offer.digest]
            self._start(
                self.to_device(device, Frame(parts.kind, parts.step, tensors)), f"send to {device}"
            )

    def _tell_lost(self, device: str, parts: SendParts) -> None:
        """Say once of each device that the broker took what did not arrive."""
        if not parts.missing or device in self._told_lost:
            return
        self._told_lost.add(device)
        log.warning(
            "%d chunks of the %s for %s were lost after the broker had taken them, and go again; "
            "if that is no broken connection, the broker's queue for a slow reader is too short "
            "(Mosquitto: max_queued_messages)",
            *(len(numbers_of(parts.missing)), leaf_of(parts.kind), device),
        )

    async def _send(self, device: str, frame: Frame, chunk_bytes: int, missing: Ranges) -> None:
        topic = self._topics.down(device, leaf_of(frame.kind))
        only = numbers_of(missing) if missing else None
        sent = await send_frame(
            *(self._bus, topic, frame),
            chunk_bytes=chunk_bytes,
            only=only,
            window=self._windows[device],
        )
        self.num_bytes += sent
        self._on_sent(device, frame.kind, frame.step)

    def _chunk_bytes_of(self, device: str, frame: Frame) -> int:
        chunk_bytes = self._size(device).of(frame)
        if chunk_bytes < sum(tensor.nbytes for tensor in frame.tensors):
            self._timed.add(device)
        return chunk_bytes

    def _size(self, device: str) -> ChunkSize:
        return self._sizes.setdefault(device, ChunkSize(self._chunk_bytes))

    def _start(self, what: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(what, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)


def _offered(join: Join, step: StepId) -> GraphsOffer | FrozenOffer | None:
    """Find what was offered with a join at a step."""
    offers = (join.graphs, join.frozen)
    return next((each for each in offers if each and offered_step(join, each) == step), None)
