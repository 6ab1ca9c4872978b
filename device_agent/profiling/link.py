"""Measuring this device's link through the broker, with the coordinator at the other end."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from statistics import median
from time import perf_counter

from profiles.link_estimate import LinkFigures
from runtime.bus.bus import Bus
from runtime.protocol.link_probe import (
    MAX_PROBE_S,
    Survey,
    Transfer,
    probe_frame,
    probe_specs,
    survey_link,
)
from runtime.wire.chunks.inbox import FrameInbox
from runtime.wire.chunks.transfer import send_frame
from runtime.wire.commands import MeasureLink
from runtime.wire.frames import FrameKind, StepId, TensorSpec, body_bytes
from runtime.wire.topics import Topics

TransferFunction = Callable[[Transfer], Awaitable[float]]
"""Makes one exchange; the seconds until all of it had arrived."""


class LinkProbe:
    """Exchanges with the coordinator; one measurement at a time."""

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
        self._inbox = FrameInbox(self._asked_for)
        self._expected: StepId | None = None
        self._arrived: asyncio.Future[float] | None = None
        self._acknowledged_s: list[float] = []

    async def measure(self, request: MeasureLink) -> tuple[LinkFigures, float]:
        """Measure; the figures, and the seconds of the broker's part in the round trip.

        Raises LinkProbeError when nothing comes back.
        """
        self._acknowledged_s = []
        number = 0

        async def exchange(transfer: Transfer) -> float:
            nonlocal number
            number += 1
            return await self._exchange(request.probe, number, transfer)

        budget_s = min(request.budget_s, MAX_PROBE_S)
        survey = survey_link(budget_bytes=request.budget_bytes, budget_s=budget_s)
        figures = await drive_survey(survey, exchange, budget_s=budget_s, clock=self._clock)
        return figures, median(self._acknowledged_s)

    def receive(self, payload: memoryview) -> None:
        """Take a message from the coordinator; MalformedMessageError if it cannot be right."""
        frame = self._inbox.feed(payload, kind=FrameKind.PROBE)
        if frame is not None and self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(self._clock())

    async def _exchange(self, probe: int, number: int, transfer: Transfer) -> float:
        self._expected = StepId(probe, transfer.down_bytes, number, 0)
        self._arrived = asyncio.get_running_loop().create_future()
        frame = probe_frame(StepId(probe, transfer.up_bytes, number, 0), note=transfer.down_bytes)
        chunk_bytes = self._chunk_bytes
        if transfer.num_messages > 1:
            chunk_bytes = -(-body_bytes(probe_specs(transfer.up_bytes)) // transfer.num_messages)
        start_s = self._clock()
        try:
            await send_frame(self._bus, self._topic, frame, chunk_bytes=chunk_bytes)
            if transfer == Transfer():
                self._acknowledged_s.append(self._clock() - start_s)
            return await self._arrived - start_s
        finally:
            self._expected = self._arrived = None

    def _asked_for(self, kind: FrameKind, step: StepId) -> Sequence[TensorSpec] | None:
        if kind is not FrameKind.PROBE or step != self._expected:
            return None
        return probe_specs(step.round)


async def drive_survey(
    survey: Survey, exchange: TransferFunction, *, budget_s: float, clock: Callable[[], float]
) -> LinkFigures:
    """Make the exchanges that a survey wants; what takes longer than its patience is lost."""
    end_s = clock() + budget_s
    transfer = next(survey)
    while True:
        seconds = None
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(transfer.patience_s, end_s - clock()))):
                seconds = await exchange(transfer)
        try:
            transfer = survey.send(seconds)
        except StopIteration as finished:
            figures: LinkFigures = finished.value
            return figures
