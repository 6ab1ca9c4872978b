"""What a device publishes on its own topics: status, profile, replies and metrics."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from time import perf_counter

from device_agent.agent.endpoint import DeviceEndpoint
from profiles.link_estimate import LinkEstimate, LinkFigures
from runtime.wire.fields import LEAST_RATE, MAX_BPS, Message
from runtime.wire.measures import ComputeProfile, LinkProfile
from runtime.wire.published import DeviceMetrics, DeviceProfile, DeviceStatus

CHANGED_FRACTION = 0.10
"""A figure that has moved by more than this part of itself is worth publishing."""
MAX_AGE_S = 60.0
"""A profile is published at least this often."""


class PublishedProfile:
    """Facts, compute and link of one device, and when they were last told."""

    def __init__(
        self,
        facts: Callable[[], DeviceProfile],
        publish: Callable[[DeviceProfile], Awaitable[None]],
    ) -> None:
        self.compute: ComputeProfile | None = None
        self.link = LinkEstimate()
        self._facts = facts
        self._publish = publish
        self._last: DeviceProfile | None = None

    def link_profile(self) -> LinkProfile | None:
        """What is known of the link now."""
        figures = self.link.figures()
        if figures is None:
            return None
        return link_profile_of(figures)

    async def publish(self) -> None:
        """Read the facts and publish the profile as it is now."""
        await self._tell(await self._read())

    async def refresh(self) -> None:
        """Publish if a figure has changed, or the last profile has become old."""
        profile = await self._read()
        if self._last is None or is_worth_telling(self._last, profile):
            await self._tell(profile)

    async def keep_fresh(self) -> None:
        """Publish at least every so often, until cancelled."""
        while True:
            await asyncio.sleep(MAX_AGE_S)
            await self.refresh()

    async def _read(self) -> DeviceProfile:
        facts = await asyncio.to_thread(self._facts)
        return facts.model_copy(update={"compute": self.compute, "link": self.link_profile()})

    async def _tell(self, profile: DeviceProfile) -> None:
        self._last = profile
        await self._publish(profile)


def link_profile_of(figures: LinkFigures) -> LinkProfile:
    """Put figures of a link into what is published; rates as far as a profile may say.

    A few bytes may seem to have taken next to no time.
    """
    rates = {
        "up_bps": _bounded(figures.up_bps),
        "up_deviation_bps": min(figures.up_deviation_bps, MAX_BPS),
        "down_bps": _bounded(figures.down_bps),
        "down_deviation_bps": min(figures.down_deviation_bps, MAX_BPS),
    }
    return LinkProfile(**asdict(figures) | rates, measured_at_unix_s=time.time())


def _bounded(rate_bps: float) -> float:
    return min(max(rate_bps, LEAST_RATE), MAX_BPS)


def is_worth_telling(before: DeviceProfile, now: DeviceProfile) -> bool:
    """Whether a profile says something new, or the one before is old."""
    age_s = now.measured_at_unix_s - before.measured_at_unix_s
    return not 0 <= age_s < MAX_AGE_S or has_changed(before.model_dump(), now.model_dump())


def has_changed(before: object, now: object) -> bool:
    """Whether any figure has moved by more than a tenth; times and deviations do not count."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return any(
            has_changed(before.get(name), value)
            for name, value in now.items()
            if not name.endswith(("_unix_s", "deviation")) and "_deviation_" not in name
        )
    if isinstance(before, tuple) and isinstance(now, tuple):
        pairs = zip(before, now, strict=False)
        return len(before) != len(now) or any(has_changed(*pair) for pair in pairs)
    if isinstance(before, float | int) and isinstance(now, float | int):
        return abs(now - before) > CHANGED_FRACTION * abs(before)
    return before != now


class Publisher:
    """Publishes status, profile, replies and metrics; every small message measures the link."""

    def __init__(
        self,
        endpoint: DeviceEndpoint,
        status: DeviceStatus,
        facts: Callable[[], DeviceProfile],
    ) -> None:
        self.profile = PublishedProfile(facts, self._publish_profile)
        self._endpoint = endpoint
        self._device, self._topics = endpoint.device, endpoint.topics
        self._status = status

    async def announce(self) -> None:
        """Say that the device is there, and what it is."""
        await self.say_online()
        await self.profile.publish()

    async def say_online(self) -> None:
        """Say that the device is there."""
        await self._publish_status(self._status)

    async def say_offline(self) -> None:
        """Say goodbye."""
        await self._publish_status(self._status.model_copy(update={"state": "offline"}))

    async def reply(self, message: Message) -> None:
        """Answer the coordinator."""
        await self._publish(self._topics.reply(self._device), message)

    async def tell_metrics(self, metrics: DeviceMetrics) -> None:
        """Say what a turn cost."""
        await self._publish(self._topics.metrics(self._device), metrics)

    async def _publish_profile(self, profile: DeviceProfile) -> None:
        topic = self._topics.profile(self._device)
        await self._endpoint.publish(topic, profile, retain=True)

    async def _publish_status(self, status: DeviceStatus) -> None:
        await self._endpoint.publish(self._topics.status(self._device), status, retain=True)

    async def _publish(self, topic: str, message: Message) -> None:
        start_s = perf_counter()
        await self._endpoint.publish(topic, message)
        self.profile.link = self.profile.link.after_small_message(
            acknowledged_after_s=perf_counter() - start_s
        )
