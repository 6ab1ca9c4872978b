"""What a device says of itself, on its own topics."""

from collections.abc import Callable
from time import perf_counter

from device_agent.published_profile import PublishedProfile
from runtime.bus.bus import Bus
from runtime.wire.fields import Message
from runtime.wire.published import DeviceMetrics, DeviceProfile, DeviceStatus
from runtime.wire.topics import Topics


class Voice:
    """Publishes status, profile, replies and metrics; every small message measures the link."""

    def __init__(
        self,
        device: str,
        bus: Bus,
        topics: Topics,
        status: DeviceStatus,
        facts: Callable[[], DeviceProfile],
    ) -> None:
        self.profile = PublishedProfile(facts, self._publish_profile)
        self._device = device
        self._bus = bus
        self._topics = topics
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
        await self._publish(self._topics.up(self._device, "reply"), message)

    async def tell_metrics(self, metrics: DeviceMetrics) -> None:
        """Say what a turn cost."""
        await self._publish(self._topics.metrics(self._device), metrics)

    async def _publish_profile(self, profile: DeviceProfile) -> None:
        await self._bus.publish(self._topics.profile(self._device), profile.encode(), retain=True)

    async def _publish_status(self, status: DeviceStatus) -> None:
        await self._bus.publish(self._topics.status(self._device), status.encode(), retain=True)

    async def _publish(self, topic: str, message: Message) -> None:
        start_s = perf_counter()
        await self._bus.publish(topic, message.encode(), retain=False)
        self.profile.link = self.profile.link.after_small_message(
            acknowledged_after_s=perf_counter() - start_s
        )
