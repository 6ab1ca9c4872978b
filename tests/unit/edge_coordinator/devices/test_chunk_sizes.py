"""How large the chunks are that a device's frames go in: by its link, not by what it waits for."""

import numpy as np
import pytest

from edge_coordinator.devices.outbound import Outbound
from runtime.bus.bus import Connected, Delivery
from runtime.bus.memory_bus import MemoryBroker
from runtime.protocol.coordinator_events import FrameRequest
from runtime.wire.chunks.transfer import FIRST_CHUNK_BYTES, LEAST_CHUNK_BYTES
from runtime.wire.frames import Frame, FrameKind, decode_chunk
from runtime.wire.measures import PhaseSeconds
from runtime.wire.published import DeviceMetrics
from tests.turn import JOIN, TOPICS, step_at

MOST_BYTES = 256_000
GRADIENT = np.zeros(25_000, np.float32)
FRAME = Frame(FrameKind.GRADIENT, step_at(0), (GRADIENT,))
REQUEST = FrameRequest(FrameKind.GRADIENT, step_at(0), FrameKind.WEIGHTS, step_at(0), ())


def _metrics(download_s: float) -> DeviceMetrics:
    """Of a turn in which all local epochs' gradients took this long to come down."""
    phases = PhaseSeconds(
        distribute_s=0.0, forward_s=1.0, upload_s=1.0, server_s=0.0,
        download_s=download_s / JOIN.local_epochs, backward_s=1.0, model_upload_s=1.0,
    )  # fmt: skip
    return DeviceMetrics(
        run=JOIN.run, round=JOIN.round, cluster=JOIN.cluster, forward_s=1.0, backward_s=1.0,
        upload_s=1.0, waiting_s=60.0, up_bytes=0, down_bytes=GRADIENT.nbytes, phases=phases,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("download_s", "chunk_bytes"),
    [(0.01, GRADIENT.nbytes), (2.0, GRADIENT.nbytes // 4), (60.0, LEAST_CHUNK_BYTES)],
)
async def test_chunks_follow_the_link_however_long_answers_take(
    download_s: float, chunk_bytes: int
) -> None:
    broker = MemoryBroker()
    async with broker.connect("coordinator") as bus, broker.connect("d0") as device:
        await device.subscribe(TOPICS.down("d0", "gradient"))
        events = device.events()
        outbound = Outbound(bus, TOPICS, chunk_bytes=MOST_BYTES, on_sent=lambda *_: None)
        outbound.joins["d0"] = JOIN

        async def largest_chunk() -> int:
            await outbound.to_device("d0", FRAME)
            largest, num_chunks, num_seen = 0, 1, 0
            while num_seen < num_chunks:
                event = await anext(events)
                if isinstance(event, Connected):
                    continue
                assert isinstance(event, Delivery)
                chunk = decode_chunk(event.payload)
                num_chunks, num_seen = chunk.num_chunks, num_seen + 1
                largest = max(largest, len(chunk.data))
            return largest

        assert await largest_chunk() == FIRST_CHUNK_BYTES
        outbound.settle("d0", REQUEST, took_s=60.0)
        assert await largest_chunk() == FIRST_CHUNK_BYTES
        outbound.learn("d0", _metrics(download_s))
        learned = await largest_chunk()
        assert learned == pytest.approx(chunk_bytes, rel=0.01)
        outbound.settle("d0", REQUEST, took_s=None)
        assert await largest_chunk() == FIRST_CHUNK_BYTES
