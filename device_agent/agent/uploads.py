"""Sending a device's answers, and counting the seconds and bytes of its turn."""

import logging
from collections import defaultdict
from collections.abc import Callable
from time import perf_counter

from device_agent.agent.endpoint import DeviceEndpoint
from device_agent.agent.publisher import PublishedProfile
from device_agent.agent.recorded_work import record_transfer
from device_agent.profiling.energy_meter import start_meter
from profiles.link_estimate import LinkEstimate
from runtime.bus.pacing import Pacer
from runtime.errors import BusError, EdgeError, MessageSizeError
from runtime.wire.chunks.inbox import leaf_of, numbers_of
from runtime.wire.chunks.transfer import ChunkSize, SendWindow, SharedLine, chunk_room, send_frame
from runtime.wire.commands import Join
from runtime.wire.frames import Frame, FrameKind, StepId
from runtime.wire.measures import PhaseSeconds
from runtime.wire.published import DeviceMetrics

Ranges = tuple[tuple[int, int], ...]
"""Runs of chunks, by the first and the last of each."""

FrameKey = tuple[FrameKind, int]
"""A frame under way, by its micro-batch."""

log = logging.getLogger(__name__)


class TurnMeter:
    """Counts what one turn sends, receives and waits for."""

    def __init__(self, clock: Callable[[], float] = perf_counter, *, device: str = "") -> None:
        self._clock = clock
        self._joules = start_meter()
        self._device = device
        self._upload_s: defaultdict[FrameKind, float] = defaultdict(float)
        self._download_s: defaultdict[FrameKind, float] = defaultdict(float)
        self._waiting_s = 0.0
        self._waiting_since_s: float | None = None
        self._up_bytes = 0
        self._down_bytes = 0
        self._first: dict[FrameKey, tuple[float, int]] = {}
        """When the first message of the frame under way came, and its bytes."""
        self._frame_bytes: defaultdict[FrameKey, int] = defaultdict(int)

    def begin_upload(self) -> None:
        """Count the time from here to the next frame as waiting."""
        self._waiting_since_s = self._clock()

    def uploaded(self, kind: FrameKind, *, num_bytes: int, seconds: float) -> None:
        """Count a frame that the broker has acknowledged."""
        self._up_bytes += num_bytes
        self._upload_s[kind] += seconds

    def arrived(self, kind: FrameKind, num_bytes: int, *, micro_batch: int = 0) -> None:
        """Count one message of a frame from the coordinator."""
        self._down_bytes += num_bytes
        self._first.setdefault((kind, micro_batch), (self._clock(), num_bytes))
        self._frame_bytes[kind, micro_batch] += num_bytes

    def completed(
        self, kind: FrameKind, link: LinkEstimate, *, step: StepId | None = None
    ) -> LinkEstimate:
        """Count a frame whose last message has arrived; what it shows of the link.

        A device cannot know when its first message was sent, so that one is put down as long as
        the link is known to take for it.
        """
        now_s, key = self._clock(), (kind, step.micro_batch if step else 0)
        first_s, first_bytes = self._first.pop(key)
        num_bytes = self._frame_bytes.pop(key)
        seconds = now_s - first_s + link.download_s(first_bytes)
        self._download_s[kind] += seconds
        if step is not None:
            record_transfer(self._device, kind, step, seconds=seconds, num_bytes=num_bytes)
        if self._waiting_since_s is not None:
            self._waiting_s += now_s - self._waiting_since_s
            self._waiting_since_s = None
        rest_bytes = num_bytes - first_bytes
        return link.after_download(num_bytes=rest_bytes, arrived_within_s=now_s - first_s)

    def metrics(self, join: Join, *, forward_s: float, backward_s: float) -> DeviceMetrics:
        """Sum the turn up; the compute seconds are those of all its local epochs."""
        epochs = join.local_epochs
        return DeviceMetrics(
            run=join.run,
            round=join.round,
            cluster=join.cluster,
            forward_s=forward_s,
            backward_s=backward_s,
            upload_s=sum(self._upload_s.values()),
            waiting_s=self._waiting_s,
            up_bytes=self._up_bytes,
            down_bytes=self._down_bytes,
            metered_j=self._joules(),
            phases=PhaseSeconds(
                distribute_s=self._download_s[FrameKind.MODEL],
                forward_s=forward_s / epochs,
                upload_s=self._upload_s[FrameKind.SMASHED] / epochs,
                server_s=0.0,
                download_s=self._download_s[FrameKind.GRADIENT] / epochs,
                backward_s=backward_s / epochs,
                model_upload_s=self._upload_s[FrameKind.WEIGHTS],
            ),
        )


class SendError(EdgeError):
    """The broker does not take what this device has to send; the message says why."""


class Uploads:
    """Sends the frames of one device."""

    def __init__(
        self, endpoint: DeviceEndpoint, profile: PublishedProfile, line: SharedLine
    ) -> None:
        """`line` is that of all devices of this process that share one."""
        self._device, self._bus = endpoint.device, endpoint.bus
        self._topics = endpoint.topics
        self._profile = profile
        self._size = ChunkSize(endpoint.chunk_bytes)
        self._line = line
        self._window = SendWindow()
        self._num_under_way = 0
        self._acknowledged_at_s = 0.0
        """When the broker had all of a frame last."""
        self._sent: dict[int, tuple[FrameKind, StepId, int]] = {}
        """By micro-batch: the last frame, and the size of its chunks."""
        self._has_failed = False

    async def send(
        self, frame: Frame, turn: TurnMeter, pacer: Pacer | None, *, only: Ranges = ()
    ) -> bool:
        """Whether the broker took it; if not, the coordinator asks for it again.

        With `only`, these runs of its chunks, if it goes in the chunks that it went in before.

        SendError if asking is no use: it is too large, or neither was the one before taken.
        """
        is_first, has_failed = not self._num_under_way, self._has_failed
        turn.begin_upload()
        start_s, before_bytes = perf_counter(), self._line.num_bytes
        self._num_under_way += 1
        try:
            num_bytes, chunk_bytes = await self._send(frame, pacer, only)
        except BusError as error:
            self._note_failed(frame, error, is_again=has_failed)
            return False
        finally:
            self._num_under_way -= 1
        self._has_failed = False
        now_s = perf_counter()
        seconds, since_s = now_s - start_s, max(start_s, self._acknowledged_at_s)
        self._acknowledged_at_s = now_s
        turn.uploaded(frame.kind, num_bytes=num_bytes, seconds=now_s - since_s)
        record_transfer(self._device, frame.kind, frame.step, seconds=seconds, num_bytes=num_bytes)
        self._line.num_bytes += num_bytes
        self._size.learn(num_bytes=self._line.num_bytes - before_bytes, seconds=seconds)
        # A paced upload shows the share, not the link; one behind others what these took as well.
        if pacer is None and is_first:
            self._profile.link = self._profile.link.after_upload(
                num_bytes=num_bytes,
                acknowledged_after_s=seconds,
                num_messages=-(-num_bytes // chunk_bytes),
            )
        return True

    async def _send(self, frame: Frame, pacer: Pacer | None, only: Ranges) -> tuple[int, int]:
        """Send behind what is under way; bytes that were sent, and of the chunks."""
        topic = self._topics.up(self._device, leaf_of(frame.kind))
        chunk_bytes, numbers = self._cut(frame, pacer, only)
        num_bytes = await send_frame(
            *(self._bus, topic, frame),
            chunk_bytes=chunk_bytes,
            pacer=pacer,
            only=numbers,
            window=self._window,
        )
        return num_bytes, chunk_bytes

    def _note_failed(self, frame: Frame, error: BusError, *, is_again: bool) -> None:
        """Take note that the broker did not take a frame; SendError if asking again is no use."""
        what = f"could not send its {leaf_of(frame.kind)}: {error}"
        log.warning("%s %s", self._device, what)
        if isinstance(error, MessageSizeError):
            raise SendError(f"{what}; give its agent a smaller --chunk-bytes") from error
        if is_again:
            raise SendError(what) from error
        self._has_failed = True

    def _cut(
        self, frame: Frame, pacer: Pacer | None, only: Ranges
    ) -> tuple[int, frozenset[int] | None]:
        """Size of the frame's chunks, and which of them to send; none is all."""
        place = frame.step.micro_batch
        if only and place in self._sent:
            kind, step, before_bytes = self._sent[place]
            chunk_bytes = chunk_room(self._bus, before_bytes, pacer)
            if (kind, step, chunk_bytes) == (frame.kind, frame.step, before_bytes):
                return chunk_bytes, numbers_of(only)
        chunk_bytes = chunk_room(self._bus, self._size.of(frame), pacer)
        self._sent[place] = (frame.kind, frame.step, chunk_bytes)
        return chunk_bytes, None


def is_of(step: StepId, join: Join) -> bool:
    """Whether a step belongs to a turn."""
    return (step.run, step.round, step.cluster) == (join.run, join.round, join.cluster)
