"""The coordinator's end of a link measurement: it answers what a device sends to measure itself."""

import asyncio
import math
from collections.abc import Sequence

from runtime.bus.bus import Bus
from runtime.protocol.link_probe import probe_frame, probe_specs
from runtime.wire.chunks.inbox import FrameInbox
from runtime.wire.chunks.transfer import send_frame
from runtime.wire.commands import MeasureLink
from runtime.wire.frames import Frame, FrameKind, StepId, TensorSpec
from runtime.wire.topics import Topics

MAX_FRACTION_OF_ROUND = 0.05
"""A measurement moves at most this part of the bytes of a round."""
MIN_BUDGET_BYTES = 8_000
"""With fewer no rate would show at all."""


def probe_budget_bytes(
    *, batch_size: int, local_epochs: int, smashed_shape: Sequence[int], num_devices: int
) -> int:
    """Bytes that one measurement may move: a part of the smashed data and gradients of a round."""
    round_bytes = 2 * 4 * math.prod(smashed_shape) * batch_size * local_epochs * num_devices
    return max(MIN_BUDGET_BYTES, int(MAX_FRACTION_OF_ROUND * round_bytes))


class LinkEcho:
    """Answers the exchanges of one device's measurement with as many bytes as they ask for."""

    def __init__(
        self, bus: Bus, topics: Topics, *, device: str, request: MeasureLink, chunk_bytes: int
    ) -> None:
        self._bus = bus
        self._topic = topics.down(device, "probe")
        self._request = request
        self._chunk_bytes = chunk_bytes
        self._inbox = FrameInbox(self._asked_for)
        self._arrived: asyncio.Queue[Frame] = asyncio.Queue()
        self._last_number = 0
        self._left_bytes = request.budget_bytes

    def receive(self, payload: memoryview) -> None:
        """Take a message of the device; MalformedMessageError if it cannot be right."""
        frame = self._inbox.feed(payload, kind=FrameKind.PROBE)
        if frame is not None:
            self._last_number = frame.step.cluster  # What comes twice is answered once.
            self._arrived.put_nowait(frame)

    async def serve(self) -> None:
        """Answer until cancelled."""
        while True:
            await self._answer(await self._arrived.get())

    async def _answer(self, arrived: Frame) -> None:
        padding, wanted = arrived.tensors
        num_bytes = min(max(0, int(wanted[0])), self._left_bytes)
        self._left_bytes -= num_bytes + padding.nbytes
        step = StepId(arrived.step.run, num_bytes, arrived.step.cluster, 0)
        answer = probe_frame(step, note=padding.nbytes)
        await send_frame(self._bus, self._topic, answer, chunk_bytes=self._chunk_bytes)

    def _asked_for(self, kind: FrameKind, step: StepId) -> Sequence[TensorSpec] | None:
        is_next = step.run == self._request.probe and step.cluster > self._last_number
        if kind is not FrameKind.PROBE or not is_next or step.round > max(0, self._left_bytes):
            return None
        return probe_specs(step.round)
