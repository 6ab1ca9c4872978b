"""Who is asked again to take part, and when."""

from edge_coordinator.devices.admission import Admission
from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.devices.tolerance import Tolerance
from runtime.bus.memory_bus import MemoryBroker
from tests.builders import make_job
from tests.noise import shards
from tests.turn import CHUNK_BYTES, READY, RUN, STATUS, TOPICS


async def test_who_refuses_is_asked_again_more_and_more_seldom() -> None:
    job, _ = make_job(shards([4], (1, 28, 28)), {})
    async with MemoryBroker().connect("coordinator") as bus:
        channel = DeviceChannel(
            bus,
            TOPICS,
            run=RUN,
            tolerance=Tolerance(60, 15, max_unusable=10),
            chunk_bytes=CHUNK_BYTES,
        )
        registry, admission = channel.registry, Admission(job, channel, lambda _: None)
        registry.note_status("pi-1", STATUS)
        registry.note_ready("pi-1", READY)

        def times_until_asked() -> int:
            registry.note_refusal("pi-1", "no room")
            assert registry.barred == {"pi-1": "no room"}
            for times in range(1, 200):
                admission.ask_again()
                if registry.unassigned == ["pi-1"]:
                    return times
            raise AssertionError

        waited = [times_until_asked() for _ in range(9)]
        assert waited[0] == 1
        assert waited == sorted(waited)
        assert waited[-1] == 64
        registry.note_ready("pi-1", READY)
        assert times_until_asked() > 1  # Work that fails is not forgotten.
        registry.note_status("pi-1", STATUS.model_copy(update={"session": "b" * 16}))
        assert times_until_asked() == 1
