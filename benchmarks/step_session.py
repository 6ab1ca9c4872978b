"""The same cluster steps twice: over MQTT with real agents, and in one process without a network.

Both sides train the same network on the same mini-batches with the same classes; a turn of one is
followed by the same turn of the other, so that whatever else the machine does meets both alike.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import psutil

from benchmarks.step_timing import (
    CoreTime,
    CoreTimes,
    TimedBus,
    TimedEdge,
    do_here,
    read_core_times,
)
from device_agent.agent.trainer import Trainer
from device_agent.engines.engine import Engine
from device_agent.engines.open import open_engine
from edge_coordinator.devices.channel import DeviceChannel, Tolerance
from edge_coordinator.job.file import load_job
from edge_coordinator.job.job import Job, prepare_job
from edge_coordinator.job.settings import device_names
from edge_coordinator.local.agents import AgentProcess
from edge_coordinator.rounds.remote_cluster import Member, RemoteCluster
from edge_coordinator.rounds.server_thread import EdgeWorker
from edge_coordinator.training.algorithm import Collected, Smashed, train_cluster
from edge_coordinator.training.edge_model import EdgeModel
from runtime.bus.mqtt_bus import MqttBus
from runtime.datasets.partition import partition
from runtime.datasets.samples import DataSet
from runtime.protocol.events import (
    CollectWeights,
    ForwardDone,
    LoadModel,
    RunBackward,
    RunForward,
    WeightsCollected,
    Work,
)
from runtime.wire.commands import Assignment, Join
from runtime.wire.frames import StepId, Tensor
from runtime.wire.topics import Topics


class InProcessCluster:
    """The devices of a cluster one after another, in this thread; keeps `algorithm.Cluster`."""

    def __init__(self, workloads: Mapping[str, Trainer], counts: Mapping[str, int]) -> None:
        self._workloads = workloads
        self._counts = counts
        self._todo: dict[str, list[Work]] = {}

    @property
    def sample_counts(self) -> Mapping[str, int]:
        """|D_k| of each device."""
        return self._counts

    def join(self, join: Join) -> None:
        """Cut each device's network for a turn."""
        self._step = StepId(join.run, join.round, join.cluster, 0)
        for workload in self._workloads.values():
            workload.open(join)

    async def load(self, device_side: Sequence[Tensor]) -> None:
        """Give every device the model."""
        self._todo = {device: [LoadModel(tuple(device_side))] for device in self._workloads}

    async def forward(self) -> Mapping[str, Smashed]:
        """Smashed data of every device, in device-id order."""
        smashed = {}
        for device in self._workloads:
            done = self._run(device, RunForward(self._step))
            assert isinstance(done, ForwardDone)
            smashed[device] = Smashed(*done.tensors)
        return smashed

    async def backward(self, gradients: Mapping[str, Tensor]) -> None:
        """Keep each device's gradient for its next piece of work, as the agents have it."""
        for device, gradient in gradients.items():
            self._todo[device] = [RunBackward((gradient,))]
        self._step = replace(self._step, epoch=self._step.epoch + 1)

    async def weights(self) -> Collected:
        """Collect the device-side models after the last local epoch."""
        collected = {}
        for device in self._workloads:
            done = self._run(device, CollectWeights(self._step))
            assert isinstance(done, WeightsCollected)
            collected[device] = done.tensors
        return Collected(collected)

    def _run(self, device: str, last: Work) -> ForwardDone | WeightsCollected:
        todo, self._todo[device] = self._todo[device], []
        return self._workloads[device].run([*todo, last])


@dataclass(frozen=True)
class BusTurn:
    """One turn over MQTT; seconds are per step, means over its steps after the first."""

    step_s: tuple[float, ...]
    turn_s: float
    """The whole turn: join, model out, all steps, models back, average."""
    phases_s: Mapping[str, float]
    """Parts of the mean step, which they add up to; means over the devices."""
    core_times: CoreTimes
    """Of the whole turn, divided by its steps."""


@dataclass(frozen=True)
class PlainTurn:
    """The same turn in one process."""

    step_s: tuple[float, ...]
    turn_s: float
    ran_s: float
    """On a core, a step."""
    device_s: Mapping[str, float]
    """Forward and backward of each device, a step."""
    server_s: float


class Session:
    """One job at one batch size, on both sides."""

    def __init__(
        self, job: Job, models: Sequence[EdgeModel], data: DataSet, *, num_steps: int
    ) -> None:
        settings = job.settings
        self.job = job
        self.over_bus, self.in_process = models
        self._num_steps = num_steps
        self._devices = device_names(settings.devices.count)
        parts = partition(
            data.train.y,
            settings.data.partition,
            num_devices=len(self._devices),
            seed=settings.seed,
        )
        self._workloads = {
            device: Trainer(device, data.train.take(part), _build_engine)
            for device, part in zip(self._devices, parts, strict=True)
        }
        self._readies = {
            device: workload.prepare(job.assignment).ready
            for device, workload in self._workloads.items()
        }

    def join(self, round_: int) -> Join:
        """Ask the devices of the one cluster to take part in a round."""
        return Join(
            run=self.job.assignment.run,
            round=round_,
            cluster=0,
            purpose="train",
            cut=self.job.cut,
            local_epochs=self._num_steps,
            learning_rate=self.job.device_rate(round_, len(self._devices)),
        )

    async def turn_over_bus(self, round_: int, side: "BusSide", worker: EdgeWorker) -> BusTurn:
        """Train one turn over MQTT."""
        join = self.join(round_)
        side.bus.forget()
        size = self.job.settings.training.batch_size
        cluster = RemoteCluster(
            side.channel,
            [Member(device, self._readies[device], size) for device in self._devices],
            joins=dict.fromkeys(self._devices, join),
            smashed_shape=self.job.smashed_shape(join.cut),
            num_classes=None,
            quorum=1.0,
            rate_by_size=False,
        )
        before, start_s = side.core_times(), perf_counter()
        await cluster.join()
        rate = self.job.server_rate(round_)
        turn = self.over_bus.turn(cut=join.cut, round_=round_, learning_rate=rate)
        edge = TimedEdge(turn, worker.do)
        await train_cluster(cluster, edge, local_epochs=self._num_steps)
        turn_s, after = perf_counter() - start_s, side.core_times()
        await side.until_metrics(self._devices)
        spent = {
            name: CoreTime(ran.ran_s / self._num_steps, ran.waited_s / self._num_steps)
            for name, ran in ((name, after[name] - before.get(name, CoreTime())) for name in after)
        }
        return BusTurn(_steps_s(edge), turn_s, self._phases(edge, side.bus), spent)

    async def turn_in_process(self, round_: int) -> PlainTurn:
        """Train the same turn here."""
        join = self.join(round_)
        counts = {device: ready.num_samples for device, ready in self._readies.items()}
        cluster = InProcessCluster(self._workloads, counts)
        start_s, ran_s = perf_counter(), process_time()
        cluster.join(join)
        rate = self.job.server_rate(round_)
        turn = self.in_process.turn(cut=join.cut, round_=round_, learning_rate=rate)
        edge = TimedEdge(turn, do_here)
        await train_cluster(cluster, edge, local_epochs=self._num_steps)
        return PlainTurn(
            _steps_s(edge),
            perf_counter() - start_s,
            (process_time() - ran_s) / self._num_steps,
            {
                device: (workload.forward_s + workload.backward_s) / self._num_steps
                for device, workload in self._workloads.items()
            },
            float(np.mean(np.subtract(edge.ended_s, edge.began_s))),
        )

    def same_weights(self) -> bool:
        """Whether both sides hold the same bits."""
        left = self.over_bus.network.state_dict()
        right = self.in_process.network.state_dict()
        return all(left[name].numpy().tobytes() == right[name].numpy().tobytes() for name in left)

    def _phases(self, edge: TimedEdge, bus: TimedBus) -> dict[str, float]:
        """Where the mean step goes. Device by device its parts add up to the step."""
        epochs = range(1, self._num_steps)
        devices = self._devices
        left = np.array([[bus.gradient_left_s[d, e - 1] for d in devices] for e in epochs])
        came = np.array([[bus.smashed_came_s[d, e] for d in devices] for e in epochs])
        began, ended = np.array(edge.began_s), np.array(edge.ended_s)
        step = float(np.diff(ended).mean())
        metrics = [bus.metrics[device] for device in devices]
        away = float((came - left).mean())
        busy = step - float(np.mean([m.waiting_s for m in metrics])) / self._num_steps
        compute = sum(m.forward_s + m.backward_s for m in metrics)
        compute /= self._num_steps * len(devices)
        last = came.max(axis=1)
        return {
            "device compute": compute,
            "turn in the agent's compute thread, hops": busy - compute,
            "transit down and up": away - busy,
            "waiting for slower devices": float((last[:, None] - came).mean()),
            "hand-over to and from the server's thread": float((began[1:] - last).mean())
            + float((left - ended[:-1, None]).mean()),
            "server compute": float((ended - began)[1:].mean()),
        }


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
            on_other=lambda _: None,
            on_connected=lambda: None,
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


def make_session(
    overrides: Mapping[str, object], data: DataSet, *, run: int, num_steps: int
) -> Session:
    """Prepare both sides of a job with these settings."""
    settings = load_job(None, overrides)
    prepared = [prepare_job(settings, run=run, base_dir=Path(), data=data) for _ in range(2)]
    return Session(prepared[0][0], [model for _, model in prepared], data, num_steps=num_steps)


def _build_engine(assignment: Assignment, sample_shape: tuple[int, ...]) -> Engine:
    return open_engine("torch", assignment, sample_shape=sample_shape)


def _steps_s(edge: TimedEdge) -> tuple[float, ...]:
    return tuple(np.diff(edge.ended_s).tolist())
