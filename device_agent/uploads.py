"""Sending a device's answers: what each took goes into its turn and into what the link can do."""

import logging
from time import perf_counter

from device_agent.published_profile import PublishedProfile
from device_agent.turn_meter import TurnMeter
from runtime.bus.bus import Bus
from runtime.bus.pacing import Pacer
from runtime.errors import BusError, EdgeError, MessageSizeError
from runtime.wire.frames import Frame
from runtime.wire.topics import Topics
from runtime.wire.transfer import leaf_of, send_frame

log = logging.getLogger(__name__)


class SendError(EdgeError):
    """The broker does not take what this device has to send; the message says why."""


class Uploads:
    """Sends the frames of one device."""

    def __init__(
        self,
        device: str,
        bus: Bus,
        topics: Topics,
        profile: PublishedProfile,
        *,
        chunk_bytes: int,
    ) -> None:
        self._device = device
        self._bus = bus
        self._topics = topics
        self._profile = profile
        self._chunk_bytes = chunk_bytes
        self._has_failed = False

    async def send(self, frame: Frame, turn: TurnMeter, pacer: Pacer | None) -> bool:
        """Whether the broker took it; if not, the coordinator asks for it again.

        SendError if asking is no use: it is too large, or neither was the one before taken.
        """
        topic = self._topics.up(self._device, leaf_of(frame.kind))
        turn.begin_upload()
        start_s = perf_counter()
        try:
            num_bytes = await send_frame(
                self._bus, topic, frame, chunk_bytes=self._chunk_bytes, pacer=pacer
            )
        except BusError as error:
            what = f"could not send its {leaf_of(frame.kind)}: {error}"
            log.warning("%s %s", self._device, what)
            if isinstance(error, MessageSizeError):
                raise SendError(f"{what}; give its agent a smaller --chunk-bytes") from error
            if self._has_failed:
                raise SendError(what) from error
            self._has_failed = True
            return False
        self._has_failed = False
        seconds = perf_counter() - start_s
        turn.uploaded(frame.kind, num_bytes=num_bytes, seconds=seconds)
        if pacer is None:  # A paced upload shows the share, not the link.
            self._profile.link = self._profile.link.after_upload(
                num_bytes=num_bytes,
                acknowledged_after_s=seconds,
                num_messages=-(-num_bytes // self._chunk_bytes),
            )
        return True
