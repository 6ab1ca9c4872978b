"""How fast a device computes, as it finds out and publishes: with a job and without."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor as ThreadPool
from functools import partial
from typing import Any

from device_agent.agent.hosting import Hosting
from device_agent.agent.publisher import PublishedProfile
from device_agent.agent.trainer import Trainer
from device_agent.engines.compute_timings import ComputeTimings
from device_agent.engines.measurement import (
    Measurement,
    UnwantedError,
    take_between,
)
from device_agent.profiling.reference_network import generic_profile
from runtime.protocol.events import DeviceEvent, PassOpened, Prepared
from runtime.wire.commands import Join
from runtime.wire.measures import ComputeProfile

GENERIC_AFTER_S = 3.0
"""A job that comes before that leaves nothing to be measured without one."""

log = logging.getLogger(__name__)


class Measuring:
    """One device's measurements of its compute, each shared with the devices of its process."""

    def __init__(
        self,
        device: str,
        trainer: Trainer,
        profile: PublishedProfile,
        compute: ThreadPool,
        hosting: Hosting,
    ) -> None:
        self._device = device
        self._trainer = trainer
        self._profile = profile
        self._compute = compute
        self._shared = hosting.findings
        self._generic = hosting.generic
        self._current: Measurement[Any] | None = None
        """Of the whole network of the job that was prepared last."""

    async def without_job(self) -> None:
        """Measure what this device can do without a job, unless one comes that tells more."""
        if self._generic is None:
            return
        await asyncio.sleep(GENERIC_AFTER_S)
        try:
            timings = await self._take(self._generic, is_wanted=self._knows_nothing)
        except UnwantedError:
            return
        if timings is not None and self._profile.compute is None:
            await self._publish(generic_profile(timings))

    async def before_answer(self, event: DeviceEvent) -> None:
        """Measure what has to be published before this is answered."""
        match event:
            case Prepared():
                self._current = self._trainer.measurement()
                if self._trainer.assignment.measure:
                    await self._of_job(self._current)
            case PassOpened(join) if join.purpose == "measure":
                await self._of_job(self._trainer.measurement(join))

    async def after_answer(self, event: DeviceEvent) -> None:
        """Measure the network of a job that did not wait for it, between the steps of training."""
        if not isinstance(event, Prepared) or self._trainer.assignment.measure:
            return
        try:
            await self._of_job(self._current)
        except Exception as error:  # The user's own network; training will say it too.
            log.warning("%s could not measure its compute: %s", self._device, error)

    def is_found(self, join: Join) -> bool:
        """Whether this process has measured what a turn asks to be measured."""
        if join.purpose != "measure":
            return False
        measurement = self._trainer.measurement(join)
        return measurement is not None and self._shared.has(measurement.key)

    def _knows_nothing(self) -> bool:
        return self._current is None and self._profile.compute is None

    async def _of_job(self, measurement: Measurement[Any] | None) -> None:
        if measurement is None:
            return
        assignment = self._trainer.assignment
        timings = await self._take(measurement, is_wanted=lambda: True)
        if timings is not None and self._trainer.assignment is assignment:
            await self._publish(self._trainer.published(timings))

    async def _take(
        self, measurement: Measurement[Any], *, is_wanted: Callable[[], bool]
    ) -> ComputeTimings | None:
        take = partial(self._in_turns, measurement, is_wanted)
        return measurement.read(await self._shared.once(measurement.key, take))

    async def _in_turns(
        self, measurement: Measurement[Any], is_wanted: Callable[[], bool]
    ) -> object:
        return await take_between(measurement.take(), self._compute, is_wanted=is_wanted)

    async def _publish(self, compute: ComputeProfile) -> None:
        self._profile.compute = compute
        await self._profile.publish()
