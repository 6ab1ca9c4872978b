"""Devices that publish what a test states: a coordinator's bus whose profiles are replaced."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from runtime.bus.bus import Bus, BusEvent, Delivery
from runtime.bus.memory_bus import MemoryBus
from runtime.wire.measures import ComputeProfile, LayerTiming, LinkProfile
from runtime.wire.published import DeviceProfile, RoundReport
from runtime.wire.topics import Topics

LENET = (
    "conv1", "relu1", "pool1", "conv2", "relu2", "pool2",
    "flatten", "fc1", "relu3", "fc2", "relu4", "fc3",
)  # fmt: skip


@dataclass(frozen=True)
class Stated:
    """What a device says of itself."""

    layer_s: float = 1e-4
    """Seconds per sample of each layer, forward and backward."""
    bps: float = 1e7
    network: str = "lenet"
    free_memory_bytes: int = 10**9

    def over(self, profile: DeviceProfile) -> DeviceProfile:
        """Put these figures into a profile."""
        layers = tuple(
            LayerTiming(name=name, forward_s=self.layer_s, backward_s=self.layer_s)
            for name in LENET
        )
        compute = ComputeProfile(
            network=self.network,
            batch_size=16,
            layers=layers,
            forward_flop_per_s=1e5 / self.layer_s,
            backward_flop_per_s=1e5 / self.layer_s,
            relative_deviation=0.02,
            measured_at_unix_s=0.0,
        )
        link = LinkProfile(
            up_bps=self.bps,
            up_deviation_bps=self.bps / 50,
            down_bps=self.bps,
            down_deviation_bps=self.bps / 50,
            round_trip_s=0.001,
            round_trip_deviation_s=0.0,
            message_s=0.0,
            num_transfers=10,
            measured_at_unix_s=0.0,
        )
        free_bytes = self.free_memory_bytes
        return profile.model_copy(
            update={"compute": compute, "link": link, "free_memory_bytes": free_bytes}
        )


def stated_profile(device: str, stated: Stated) -> DeviceProfile:
    """Build a whole profile of a device."""
    blank = DeviceProfile(
        device=device,
        engine="torch",
        machine="x86_64",
        num_cores=1,
        memory_bytes=10**9,
        free_memory_bytes=10**9,
        num_samples=40,
        sample_shape=(1, 28, 28),
        measured_at_unix_s=0.0,
    )
    return stated.over(blank)


@dataclass
class StatedProfiles(Bus):
    """A memory bus on which each device's profile says what is stated of it.

    Once the report of round `later_from` has been published, `later` holds.
    """

    bus: MemoryBus
    stated: Mapping[str, Stated]
    later: Mapping[str, Stated] = field(default_factory=dict)
    later_from: int = 0
    topics: Topics = field(default_factory=lambda: Topics("default"))

    @property
    def max_payload_bytes(self) -> int:
        return self.bus.max_payload_bytes

    async def publish(
        self, topic: str, payload: bytes | bytearray | memoryview, *, retain: bool
    ) -> None:
        await self.bus.publish(topic, payload, retain=retain)
        if topic != self.topics.round or not self.later:
            return
        if RoundReport.decode(bytes(payload)).round >= self.later_from:
            self.stated, self.later = {**self.stated, **self.later}, {}
            for device, stated in self.stated.items():
                profile = memoryview(stated_profile(device, stated).encode())
                self.bus.inbox.put(Delivery(self.topics.profile(device), profile, retained=False))

    async def subscribe(self, topic_filter: str) -> None:
        await self.bus.subscribe(topic_filter)

    async def unsubscribe(self, topic_filter: str) -> None:
        await self.bus.unsubscribe(topic_filter)

    async def events(self) -> AsyncIterator[BusEvent]:
        async for event in self.bus.events():
            yield self._restated(event) if isinstance(event, Delivery) else event

    def _restated(self, delivery: Delivery) -> Delivery:
        topic = self.topics.parse(delivery.topic)
        if topic is None or topic.leaf != "profile" or topic.device not in self.stated:
            return delivery
        profile = self.stated[topic.device].over(DeviceProfile.decode(delivery.payload))
        return Delivery(delivery.topic, memoryview(profile.encode()), delivery.retained)
