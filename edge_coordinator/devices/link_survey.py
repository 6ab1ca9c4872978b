"""Having devices measure their links: who, when, how much that may cost, and what if it fails."""

import asyncio
import logging
import secrets
from collections.abc import Sequence
from math import prod

from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.devices.link_measurement import probe_budget_bytes
from edge_coordinator.devices.machines import by_process
from edge_coordinator.devices.requests import DeviceGoneError
from edge_coordinator.job.job import Job
from runtime.protocol.link_probe import MAX_PROBE_S
from runtime.wire.commands import LinkMeasured, MeasureLink

START_BUDGET_S = 10.0
"""So long the first plan of new devices waits for their links; the rest is measured later on."""
AT_ONCE = 4
"""Measurements under way where each device has a line of its own; they share our own line."""

log = logging.getLogger(__name__)


class LinkSurvey:
    """Has devices measure their links, each once a session, in the background.

    Devices of one process have one link, or emulate links that know nothing of each other: one of
    them goes first, and the others then have its measurement, or make theirs, all at once. On a
    shared medium everyone would measure everyone else, so there is one measurement at a time.
    """

    def __init__(self, job: Job, channel: DeviceChannel) -> None:
        self._job = job
        self._channel = channel
        self._registry = channel.registry
        self._asked: dict[str, str] = {}
        """Device id to the session that was asked."""
        self._left: set[str] = set()
        """Whose measurement is to come."""
        self._waiting: asyncio.Queue[list[str]] = asyncio.Queue()
        self._progress = asyncio.Event()

    def survey(self) -> list[str]:
        """Have whoever is ready and new measure its link; which devices are new."""
        sessions = {d: self._registry.records[d].status.session for d in self._registry.ready}
        new = [device for device in sessions if self._asked.get(device) != sessions[device]]
        self._asked |= {device: sessions[device] for device in new}
        unknown = [device for device in new if not self._is_known(device)]
        self._left |= set(unknown)
        for devices in by_process(self._registry, unknown):
            self._waiting.put_nowait(devices)
        return new

    async def until_measured(self, devices: Sequence[str]) -> list[str]:
        """Wait for the measurements of these devices, but not for ever; whose are over."""
        try:
            async with asyncio.timeout(START_BUDGET_S):
                while not self._left.isdisjoint(devices):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            missing = self._left.intersection(devices)
            log.warning(
                "the links of %d devices are not measured yet: it goes on in the background",
                len(missing),
            )
        return [device for device in devices if device not in self._left]

    async def serve(self) -> None:
        """Have links measured, until cancelled."""
        is_shared = self._job.settings.plan.medium == "shared"
        async with asyncio.TaskGroup() as tasks:
            for _ in range(1 if is_shared else AT_ONCE):
                tasks.create_task(self._measure_next(), name="survey links")

    async def _measure_next(self) -> None:
        while True:
            first, *others = await self._waiting.get()
            await self._measure(first)
            if self._job.settings.plan.medium == "shared":
                for device in others:
                    await self._measure(device)
            else:
                await asyncio.gather(*(self._measure(device) for device in others))

    async def _measure(self, device: str) -> None:
        """Have a device measure its link; its profile says what came of it."""
        request = MeasureLink(
            probe=secrets.randbits(64), budget_bytes=self._budget_bytes(), budget_s=MAX_PROBE_S
        )
        reply: LinkMeasured | None = None
        try:
            if self._registry.is_ready(device):
                reply = await self._channel.measure_link(device, request)
                if reply.link is None:
                    log.warning("%s could not measure its link: %s", device, reply.reason)
        except DeviceGoneError as error:
            log.warning("the link of %s could not be measured: %s", device, error)
            reply = LinkMeasured(probe=request.probe, link=None, reason=str(error))
        finally:
            self._left.discard(device)
            self._progress.set()
        if reply is not None:
            self._registry.note_link(device, reply)

    def _is_known(self, device: str) -> bool:
        profile = self._registry.records[device].profile
        return profile is not None and profile.link is not None

    def _budget_bytes(self) -> int:
        """Take a planned cut to be one of middling smashed data."""
        inner = sorted(self._job.shapes[1:-1] or self._job.shapes, key=prod)
        cut = self._job.cut
        shape = inner[len(inner) // 2] if cut is None else self._job.smashed_shape(cut)
        return probe_budget_bytes(
            batch_size=self._job.settings.training.batch_size,
            local_epochs=self._job.local_epochs,
            smashed_shape=shape,
            num_devices=self._job.settings.devices.count,
        )
