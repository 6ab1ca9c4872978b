"""Devices that serve, and those that join, where nothing needs PyTorch."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from device_agent.agent.agent import Agent
from device_agent.agent.endpoint import DeviceEndpoint
from device_agent.agent.trainer import Trainer
from device_agent.engines.engine import DropoutKey, EmptyExecutor
from device_agent.profiling.machine import measure_profile
from edge_coordinator.devices.channel import DeviceChannel
from runtime.bus.bus import Bus, Delivery
from runtime.bus.memory_bus import MemoryBroker
from runtime.wire.commands import Clip
from runtime.wire.fields import Message
from runtime.wire.frames import Tensor, TensorSpec, specs_of
from runtime.wire.micro_batches import Rows
from tests.noise import random_samples
from tests.turn import JOIN, JOINED, READY, STATUS, TOPICS, Peer, device_side

Floats = NDArray[np.float32]


class SmallExecutor(EmptyExecutor):
    """The tensors of LeNet's first block, and less arithmetic: a channel is scaled and moved.

    What comes out hangs on the weights, the momentum and the samples that came in.
    """

    learns = True

    def __init__(self) -> None:
        super().__init__((6, 14, 14))
        self._tensors = [each.astype(np.float32) for each in device_side()]
        self._seen = np.zeros((0, 1, 14, 14), dtype=np.float32)

    def model_specs(self) -> tuple[TensorSpec, ...]:
        """Kernel and bias, and the momentum of both."""
        return specs_of(self._tensors)

    def load(self, tensors: Sequence[Tensor]) -> None:
        """Take over what `tensors` gives."""
        self._tensors = [each.astype(np.float32) for each in tensors]

    def tensors(self) -> list[Tensor]:
        """Copies of what `load` takes."""
        return [each.copy() for each in self._tensors]

    def forward(
        self,
        x: Floats,
        *,
        dropout_key: DropoutKey,  # noqa: ARG002
        rows: Rows | None = None,  # noqa: ARG002
    ) -> Floats:
        """Pool, scale and move."""
        self._seen = x.reshape(-1, 1, 14, 2, 14, 2).mean(axis=(3, 5), dtype=np.float32)
        kernel, bias = self._tensors[:2]
        scaled: Floats = self._seen * kernel.sum(axis=(1, 2, 3))[:, None, None]
        return scaled + bias[:, None, None]

    def backward(
        self,
        gradient: Floats,
        *,
        learning_rate: float,
        clip: Clip | None = None,  # noqa: ARG002
        is_last: bool = True,  # noqa: ARG002
    ) -> None:
        """A step of SGD with momentum."""
        of_kernel = (gradient * self._seen).sum(axis=(0, 2, 3))[:, None, None, None]
        slopes = (of_kernel, gradient.sum(axis=(0, 2, 3)))
        kept = zip(self._tensors[2:], slopes, strict=True)
        momenta = [np.float32(0.9) * momentum + slope for momentum, slope in kept]
        moves = [np.float32(learning_rate) * momentum for momentum in momenta]
        weights = [weight - move for weight, move in zip(self._tensors[:2], moves, strict=True)]
        self._tensors = [*weights, *momenta]


class SmallEngine:
    """A network of one block, cut after it whatever the cut; see `device_agent.engines.engine`."""

    graphs = None

    def check(self, sample_shape: tuple[int, ...]) -> None:
        """Any samples will do."""

    def use_threads(self, num_threads: int) -> None:
        """Compute with the one."""

    def cut_of(self, layer: str) -> int:
        """Count the layers by their number."""
        return int(layer)

    def open(self, cut: int) -> SmallExecutor:  # noqa: ARG002
        """Cut the network after its block."""
        return SmallExecutor()

    def check_batch(self, cut: int, num_samples: int) -> None:
        """Any is fine."""

    def measure_layers(self, *_: object, **__: object) -> None:
        """Nothing is timed."""

    def measure_cut(self, *_: object, **__: object) -> NoReturn:
        """Nobody asks for it."""
        raise AssertionError


async def join_all(channel: DeviceChannel, devices: Sequence[str]) -> None:
    """Have devices show up at a coordinator's end, ready, and take part in a turn."""

    def say(topic: str, message: Message) -> None:
        payload = memoryview(message.encode())
        channel.inbound.receive(Delivery(topic, payload, retained=False))

    for device in devices:
        say(TOPICS.status(device), STATUS)
        channel.registry.note_ready(device, READY)
    joining = [asyncio.create_task(channel.join(device, JOIN)) for device in devices]
    await asyncio.sleep(0)  # They are asked at once.
    for device in devices:
        say(TOPICS.reply(device), JOINED)
    await asyncio.gather(*joining)


@asynccontextmanager
async def serving_agent(
    bus: Bus, broker: MemoryBroker, *, chunk_bytes: int
) -> AsyncIterator[tuple[Agent, Peer]]:
    """The device d0 of `tests.turn`, which serves on this bus, and who plays its coordinator.

    It trains by `SmallEngine`.
    """
    samples = random_samples(40, (1, 28, 28), num_classes=10, seed=5)
    with ThreadPoolExecutor(1) as compute:
        agent = Agent(
            endpoint=DeviceEndpoint("d0", bus, TOPICS, chunk_bytes),
            status=STATUS,
            profile=partial(
                measure_profile, "d0", engine="torch", num_samples=40, sample_shape=(1, 28, 28)
            ),
            trainer=Trainer("d0", samples, lambda _job, _shape: SmallEngine()),
            compute=compute,
        )
        peer = Peer(broker.connect("coordinator"))
        serving = asyncio.create_task(agent.serve())
        await peer.listen()
        try:
            yield agent, peer
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
