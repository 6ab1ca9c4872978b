"""The same cluster steps twice: over MQTT with real agents, and in one process without a network.

Both sides train the same network on the same mini-batches with the same classes; a turn of one is
followed by the same turn of the other, so that whatever else the machine does meets both alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from benchmarks.cluster_step.bus_side import BusSide
from benchmarks.cluster_step.plain_cluster import PlainCluster
from benchmarks.cluster_step.timing import (
    CoreTime,
    CoreTimes,
    TimedBus,
    TimedEdge,
    do_here,
)
from device_agent.agent.trainer import Trainer
from device_agent.engines.engine import Engine
from device_agent.engines.open import open_engine
from edge_coordinator.job.file import load_job
from edge_coordinator.job.job import Job
from edge_coordinator.job.prepare import prepare_job
from edge_coordinator.job.settings import device_names
from edge_coordinator.rounds.members import Member, Members
from edge_coordinator.rounds.remote_cluster import RemoteCluster
from edge_coordinator.rounds.server_thread import EdgeWorker
from edge_coordinator.training.algorithm import train_cluster
from edge_coordinator.training.cuts import ALIKE
from edge_coordinator.training.edge_model import EdgeModel
from runtime.datasets.partition import partition
from runtime.datasets.samples import DataSet
from runtime.wire.commands import Assignment, Join


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


class StepSession:
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

    async def turn_over_bus(self, round_: int, side: BusSide, worker: EdgeWorker) -> BusTurn:
        """Train one turn over MQTT."""
        join = self.join(round_)
        side.bus.forget()
        size = self.job.settings.training.batch_size
        shape = self.job.smashed_shape(join.cut)
        members = [Member(device, self._readies[device], size, shape) for device in self._devices]
        cluster = RemoteCluster(
            side.channel,
            Members(members, dict.fromkeys(self._devices, join), quorum=1.0),
            parts=ALIKE,
            num_classes=None,
            seed=0,
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
        cluster = PlainCluster(self._workloads, counts)
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


def make_session(
    overrides: Mapping[str, object], data: DataSet, *, run: int, num_steps: int
) -> StepSession:
    """Prepare both sides of a job with these settings."""
    settings = load_job(None, overrides)
    prepared = [prepare_job(settings, run=run, base_dir=Path(), data=data) for _ in range(2)]
    return StepSession(prepared[0][0], [model for _, model in prepared], data, num_steps=num_steps)


def _build_engine(assignment: Assignment, sample_shape: tuple[int, ...]) -> Engine:
    return open_engine("torch", assignment, sample_shape=sample_shape)


def _steps_s(edge: TimedEdge) -> tuple[float, ...]:
    return tuple(np.diff(edge.ended_s).tolist())
