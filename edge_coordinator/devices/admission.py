"""Letting devices in: each that comes gets the job, and is asked again while it is silent."""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Sequence

from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.devices.requests import DeviceGoneError
from edge_coordinator.devices.tags import parse_where, why_unwanted
from edge_coordinator.formatting import some
from edge_coordinator.job.classes import with_classes_of_devices
from edge_coordinator.job.job import Job
from runtime.wire.fields import are_nested
from runtime.wire.names import ClassNames, FeatureNames
from runtime.wire.versions import AGGREGATED, NESTED_OPTIONS, Feature

ASK_AGAIN_S = 15.0
"""How often those that did not answer are asked again."""
SELDOM = 64
"""Times that, at the longest, those are left alone who refuse again and again."""
OTHERS_S = 5.0
"""How long others that seem to be there are waited for once enough are ready."""

SAY_EVERY_S = 1.0
"""How often people are told who is there."""

log = logging.getLogger(__name__)


class Admission:
    """Assigns the job to whoever comes, at the beginning and while the run goes on."""

    def __init__(self, job: Job, channel: DeviceChannel, say: Callable[[str], None]) -> None:
        """`say` tells people what is waited for."""
        self._job = job
        self._channel = channel
        self._registry = channel.registry
        self._registry.numbered = job.test is not None and job.test.class_names is None
        self._registry.gathers = job.test is None and not job.classes
        self._registry.needs = _features_of(job)
        names = job.settings.data.features or (job.test.feature_names if job.test else None)
        self._registry.features = FeatureNames.of(names) if names else None
        self._assignment = job.assignment
        self._say = say
        self._where = parse_where(job.settings.devices.where)
        self._asked = asyncio.Event()
        self._num_asked = 0

    async def until_there(self, num_devices: int, *, others_s: float = OTHERS_S) -> None:
        """Wait until so many are ready, and some seconds at most for others that are there.

        A device may have died with a broker that keeps saying that it is there.
        """
        clock, enough_at_s, say_at_s = asyncio.get_running_loop(), math.inf, 0.0
        while True:
            self._asked.clear()
            ready, asked = list(self._registry.ready), self._newcomers()
            is_enough = len(ready) >= num_devices
            enough_at_s = min(enough_at_s, clock.time()) if is_enough else math.inf
            left_s = enough_at_s + others_s - clock.time()
            if is_enough and (not asked or left_s <= 0):
                return
            self._job.check_refusals(self._registry.refusals)
            if is_enough:
                await self._until_asked(left_s)
            elif clock.time() < say_at_s:  # Many that come at once are one piece of news.
                await self._until_asked(say_at_s - clock.time())
            else:
                self._say(self._who_is_there(ready, num_devices))
                say_at_s = clock.time() + SAY_EVERY_S
                await self._until_asked(None)

    async def agree_on_classes(self) -> ClassNames:
        """Put the classes of all that are ready together, and number all labels along them.

        None where the job has names, or nobody has; whoever comes later has to know no others.
        """
        ready = self._registry.ready
        parts = [each.class_names for each in ready.values() if each.class_names]
        if self._job.classes or not parts:
            self._registry.gathers = False
            return ()
        self._assignment = with_classes_of_devices(self._job, parts)
        self._registry.agree(self._assignment)
        await self.until_there(len(ready))
        return self._assignment.classes or ()

    async def _until_asked(self, longest_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await self._asked.wait()

    def _who_is_there(self, ready: Sequence[str], num_devices: int) -> str:
        names = f" ({some(ready)})" if ready else ""
        unwanted = {d: why for d in self._registry.unready if (why := self._why_unwanted(d))}
        others = self._registry.barred | self._channel.busy | unwanted
        reasons = "".join(f"; {device}: {why}" for device, why in others.items())
        return f"{len(ready)} of {num_devices} devices are ready{names}{reasons}"

    async def keep_open(self) -> None:
        """Assign the job to whoever comes, until cancelled."""
        under_way: dict[str, asyncio.Task[None]] = {}
        clock = asyncio.get_running_loop()
        ask_again_at_s = clock.time() + ASK_AGAIN_S
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._channel.changed.clear()
                under_way = {d: task for d, task in under_way.items() if not task.done()}
                for device in self._newcomers():
                    if device not in under_way:
                        under_way[device] = tasks.create_task(
                            self._assign(device), name=f"assign {device}"
                        )
                self._asked.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(ask_again_at_s):
                        await self._channel.changed.wait()
                if clock.time() >= ask_again_at_s:
                    self.ask_again()
                    ask_again_at_s = clock.time() + ASK_AGAIN_S

    def ask_again(self) -> None:
        """Let the silent be asked, and half as often after each time those that refuse."""
        self._registry.silent.clear()
        self._num_asked += 1
        for device, times in list(self._registry.times_refused.items()):
            if device in self._registry.refusals and not self._num_asked % min(
                2 ** (times - 1), SELDOM
            ):
                self._registry.reconsider(device)

    def _newcomers(self) -> list[str]:
        excluded = self._job.settings.devices.exclude
        return [
            device
            for device in self._registry.unassigned
            if device not in excluded and not self._why_unwanted(device)
        ]

    def _why_unwanted(self, device: str) -> str:
        return why_unwanted(self._where, self._registry.tags.get(device, {}))

    async def _assign(self, device: str) -> None:
        if not self._registry.is_unready(device):
            return  # It was there all along, whatever somebody said of it meanwhile.
        session = self._registry.records[device].status.session
        try:
            await self._channel.assign(device, self._assignment)
        except DeviceGoneError as error:
            log.warning("%s does not take part: %s", device, error)
            if self._registry.records[device].status.session == session:
                self._registry.silent.add(device)
        self._channel.changed.set()


def _features_of(job: Job) -> list[Feature]:
    """List what a job has that older devices do not know."""
    aggregated = [AGGREGATED] if job.settings.training.phi != 0 else []
    return aggregated + ([NESTED_OPTIONS] if are_nested(job.settings.model.options) else [])
