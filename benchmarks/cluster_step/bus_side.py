"""The coordinator's end of the bus, with devices that have the job."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psutil

from benchmarks.cluster_step.timing import (
    CoreTimes,
    TimedBus,
    read_core_times,
)
from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.devices.tolerance import Tolerance
from edge_coordinator.job.job import Job
from edge_coordinator.job.settings import device_names
from edge_coordinator.local.agents import AgentProcess
from runtime.bus.mqtt_bus import MqttBus
from runtime.wire.topics import Topics


@dataclass(frozen=True)
class BusSide:
    """What the coordinator's end of the bus consists of."""

    bus: TimedBus
    channel: DeviceChannel
    processes: Mapping[str, Sequence[int]]

    def core_times(self) -> CoreTimes:
        """Core time of every thread so far."""
        return read_core_times(self.processes)

    async def until_metrics(self, devices: Sequence[str]) -> None:
        """Wait for what the agents say of the turn."""
        async with asyncio.timeout(10.0):
            while not all(device in self.bus.metrics for device in devices):
                self.bus.metrics_came.clear()
                await self.bus.metrics_came.wait()


@asynccontextmanager
async def bus_side(job: Job, *, url: str, agents: Sequence[AgentProcess]) -> AsyncIterator[BusSide]:
    """Connect as the coordinator, and give every device the job."""
    settings, topics = job.settings, Topics(job.settings.site)
    run = job.assignment.run
    async with await MqttBus.connect(url, client_id=f"benchmark-{run}", wait=False) as mqtt:
        bus = TimedBus(mqtt, topics)
        channel = DeviceChannel(
            bus,
            topics,
            run=run,
            tolerance=Tolerance.of(settings.devices),
            chunk_bytes=settings.broker.chunk_bytes,
        )
        own, agent_pids = psutil.Process(), [agent.process.pid for agent in agents]
        others = [child.pid for child in own.children(recursive=True)]
        brokers = [pid for pid in others if pid not in agent_pids]
        processes = {"coordinator": [own.pid], "agents": agent_pids, "broker": brokers}
        listening = asyncio.create_task(channel.listen(bus.events()), name="listen")
        try:
            await channel.open()
            await bus.subscribe(topics.every_device("metrics"))
            await _assign(job, channel)
            yield BusSide(bus, channel, processes)
        finally:
            listening.cancel()
            await asyncio.wait({listening})


async def _assign(job: Job, channel: DeviceChannel) -> None:
    devices = device_names(job.settings.devices.count)
    while not set(devices) <= set(channel.registry.available):
        channel.changed.clear()
        await channel.changed.wait()
    await asyncio.gather(*(channel.assign(device, job.assignment) for device in devices))
