"""Measuring a link against the broker alone, where no coordinator answers.

Up: a frame to a topic of one's own that nobody reads, timed until the broker has acknowledged it.
Down: a retained message, timed from the subscription that asks for it; it is cleared afterwards.
"""

from collections.abc import Callable
from time import perf_counter

from device_agent.profiling.link import drive_survey
from profiles.link_estimate import LinkFigures
from runtime.bus.bus import Bus, Delivery
from runtime.protocol.link_probe import MAX_PROBE_S, Transfer, probe_frame, probe_specs, survey_link
from runtime.wire.chunks.transfer import send_frame
from runtime.wire.frames import StepId, body_bytes
from runtime.wire.topics import Topics

BUDGET_BYTES = 24_000_000
LONGEST_S = 12.0
"""Everything included: what comes down has to be sent up first."""


class LoopBack:
    """Exchanges of one device with the broker, on the device's own topic."""

    def __init__(
        self,
        device: str,
        bus: Bus,
        topics: Topics,
        *,
        chunk_bytes: int,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._bus = bus
        self._topic = topics.up(device, "probe")
        self._chunk_bytes = chunk_bytes
        self._clock = clock

    async def measure(self) -> LinkFigures:
        """Measure both directions; LinkProbeError when the broker lets nothing through."""
        budget_bytes = min(BUDGET_BYTES, 3 * self._bus.max_payload_bytes)
        survey = survey_link(budget_bytes=budget_bytes, budget_s=MAX_PROBE_S)
        try:
            return await drive_survey(survey, self._exchange, budget_s=LONGEST_S, clock=self._clock)
        finally:
            await self._bus.unsubscribe(self._topic)
            await self._bus.publish(self._topic, b"", retain=True)

    async def _exchange(self, transfer: Transfer) -> float:
        return await (self._down(transfer) if transfer.down_bytes else self._up(transfer))

    async def _up(self, transfer: Transfer) -> float:
        frame = probe_frame(StepId(0, transfer.up_bytes, 0, 0), note=0)
        chunk_bytes = self._chunk_bytes
        if transfer.num_messages > 1:
            chunk_bytes = -(-body_bytes(probe_specs(transfer.up_bytes)) // transfer.num_messages)
        start_s = self._clock()
        await send_frame(self._bus, self._topic, frame, chunk_bytes=chunk_bytes)
        return self._clock() - start_s

    async def _down(self, transfer: Transfer) -> float:
        padding = probe_frame(StepId(0, transfer.down_bytes, 0, 0), note=0).tensors[0]
        await self._bus.unsubscribe(self._topic)
        await self._bus.publish(self._topic, padding.tobytes(), retain=True)
        start_s = self._clock()
        await self._bus.subscribe(self._topic)
        async for event in self._bus.events():
            if isinstance(event, Delivery) and len(event.payload) == transfer.down_bytes:
                break
        return self._clock() - start_s
