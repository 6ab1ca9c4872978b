"""Letting devices in: each that comes gets the job, and is asked again while it is silent."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from edge_coordinator.conversation import Conversation
from edge_coordinator.inquiry import DeviceGoneError
from edge_coordinator.job import Job

ASK_AGAIN_S = 15.0
"""How long to wait for a device to come before those that did not answer are asked again."""

log = logging.getLogger(__name__)


class Admission:
    """Assigns the job to whoever comes, at the beginning and while the run goes on."""

    def __init__(self, job: Job, conversation: Conversation, say: Callable[[str], None]) -> None:
        """`say` tells people what is waited for."""
        self._job = job
        self._conversation = conversation
        self._registry = conversation.registry
        self._say = say
        self._asked = asyncio.Event()

    async def until_there(self, num_devices: int) -> None:
        """Wait until so many are ready; whoever is there already is waited for as well."""
        while True:
            self._asked.clear()
            ready, asked = list(self._registry.ready), self._newcomers()
            if len(ready) >= num_devices and not asked:
                return
            self._job.check_refusals(self._registry.refusals)
            if len(ready) < num_devices:
                names = f" ({', '.join(ready)})" if ready else ""
                others = self._registry.barred | self._conversation.hearing.owing.reasons
                reasons = "".join(f"; {device}: {why}" for device, why in others.items())
                self._say(f"{len(ready)} of {num_devices} devices are ready{names}{reasons}")
            await self._asked.wait()

    async def keep_open(self) -> None:
        """Assign the job to whoever comes, until cancelled."""
        under_way: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._conversation.changed.clear()
                under_way = {d: task for d, task in under_way.items() if not task.done()}
                for device in self._newcomers():
                    if device not in under_way:
                        under_way[device] = tasks.create_task(
                            self._assign(device), name=f"assign {device}"
                        )
                self._asked.set()
                with contextlib.suppress(TimeoutError):  # One that was silent may answer now.
                    async with asyncio.timeout(ASK_AGAIN_S):
                        await self._conversation.changed.wait()
                        continue
                self._registry.silent.clear()

    def _newcomers(self) -> list[str]:
        excluded = self._job.settings.devices.exclude
        return [device for device in self._registry.unassigned if device not in excluded]

    async def _assign(self, device: str) -> None:
        session = self._registry.records[device].status.session
        try:
            await self._conversation.assign(device, self._job.assignment)
        except DeviceGoneError as error:
            log.warning("%s does not take part: %s", device, error)
            if self._registry.records[device].status.session == session:
                self._registry.silent.add(device)
        self._conversation.changed.set()
