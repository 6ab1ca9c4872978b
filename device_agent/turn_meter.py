"""Seconds and bytes of one cluster's turn, as the device sees them."""

from collections import defaultdict
from collections.abc import Callable
from time import perf_counter

from profiles.link_estimate import LinkEstimate
from runtime.wire.commands import Join
from runtime.wire.frames import FrameKind
from runtime.wire.published import DeviceMetrics, PhaseSeconds


class TurnMeter:
    """Counts what one turn sends, receives and waits for."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._upload_s: defaultdict[FrameKind, float] = defaultdict(float)
        self._download_s: defaultdict[FrameKind, float] = defaultdict(float)
        self._waiting_s = 0.0
        self._waiting_since_s: float | None = None
        self._up_bytes = 0
        self._down_bytes = 0
        self._first: dict[FrameKind, tuple[float, int]] = {}
        """When the first message of the frame under way came, and its bytes."""
        self._frame_bytes: defaultdict[FrameKind, int] = defaultdict(int)

    def begin_upload(self) -> None:
        """Count the time from here to the next frame as waiting."""
        self._waiting_since_s = self._clock()

    def uploaded(self, kind: FrameKind, *, num_bytes: int, seconds: float) -> None:
        """Count a frame that the broker has acknowledged."""
        self._up_bytes += num_bytes
        self._upload_s[kind] += seconds

    def arrived(self, kind: FrameKind, num_bytes: int) -> None:
        """Count one message of a frame from the coordinator."""
        self._down_bytes += num_bytes
        self._first.setdefault(kind, (self._clock(), num_bytes))
        self._frame_bytes[kind] += num_bytes

    def completed(self, kind: FrameKind, link: LinkEstimate) -> LinkEstimate:
        """Count a frame whose last message has arrived; what it shows of the link.

        A device cannot know when its first message was sent, so that one is put down as long as
        the link is known to take for it.
        """
        now_s = self._clock()
        first_s, first_bytes = self._first.pop(kind)
        rest_bytes = self._frame_bytes.pop(kind) - first_bytes
        self._download_s[kind] += now_s - first_s + link.download_s(first_bytes)
        if self._waiting_since_s is not None:
            self._waiting_s += now_s - self._waiting_since_s
            self._waiting_since_s = None
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
