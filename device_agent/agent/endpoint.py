"""A device's end of its site: the bus that it is on, and who it is there."""

from dataclasses import dataclass

from runtime.bus.bus import Bus
from runtime.wire.fields import Message
from runtime.wire.topics import Topics


@dataclass(frozen=True)
class DeviceEndpoint:
    """Where one device hears its coordinator, and what it sends from."""

    device: str
    bus: Bus
    topics: Topics
    """Of its site."""
    chunk_bytes: int
    """Of one message of a frame, as its owner has it; a slow link makes that less."""

    async def listen(self) -> None:
        """Hear commands, and the frames and probes that are this device's alone."""
        await self.bus.subscribe(self.topics.command(self.device))
        await self.bus.subscribe(self.topics.down(self.device, "+"))

    async def publish(self, topic: str, message: Message, *, retain: bool = False) -> None:
        """Publish a message that is JSON."""
        await self.bus.publish(topic, message.encode(), retain=retain)
