"""A server half whose outputs are known, and devices that ask it, over a bus in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from device_agent.agent.endpoint import DeviceEndpoint
from device_agent.inference.client import InferenceClient
from edge_coordinator.serve.inference import InferenceServer
from edge_coordinator.serve.inference_site import InferenceSite, new_inference_status
from runtime.bus.memory_bus import MemoryBroker, MemoryBus
from runtime.inference.half import Floats, HalfInfo
from runtime.offered import DEFAULT_CHUNK_BYTES
from runtime.wire.topics import Topics

TOPICS = Topics("default")
PAIR, OTHER_PAIR = "a" * 64, "b" * 64


class Doubles:
    """A server half whose outputs are known; may be made to fail."""

    def run(self, x: Floats) -> Floats:
        """Refuse what is above 90."""
        if x.max() > 90:
            raise RuntimeError("too large")
        return 2 * x[:, :2]


def info(pair: str = PAIR) -> HalfInfo:
    """What both halves say of themselves."""
    return HalfInfo("net", "fc1", pair, "values", "mse", "auto", 3)


async def serve(bus: MemoryBus) -> None:
    """Serve the server half until cancelled."""
    status = new_inference_status(info(), smashed_shape=(3,), output_shape=(2,))
    site, events = InferenceSite(bus, TOPICS, status), bus.events()
    await site.claim(events)
    await InferenceServer(bus, site, Doubles(), say=lambda _: None).serve(events)


@asynccontextmanager
async def served(broker: MemoryBroker, client_id: str = "server") -> AsyncIterator[None]:
    """Serve it while the block lasts."""
    async with broker.connect(client_id) as bus:
        serving = asyncio.create_task(serve(bus))
        try:
            yield
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


@asynccontextmanager
async def client_of(
    broker: MemoryBroker, device: str = "pi-1", *, pair: str = PAIR, timeout_s: float = 20.0
) -> AsyncIterator[InferenceClient]:
    """A device that has found the server half."""
    async with broker.connect(device) as bus:
        endpoint = DeviceEndpoint(device, bus, TOPICS, DEFAULT_CHUNK_BYTES)
        client = InferenceClient(
            endpoint, info(pair), codec="fp32", timeout_s=timeout_s, say=lambda _: None
        )
        listening = asyncio.create_task(client.listen(bus.events()))
        try:
            await client.open()
            yield client
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
