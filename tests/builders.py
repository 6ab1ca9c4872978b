"""Whole runs on one machine's memory bus, and the same arithmetic without any bus."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
import torch

from device_agent.agent.agent import Agent
from device_agent.agent.endpoint import DeviceEndpoint
from device_agent.agent.own_data import OwnData
from device_agent.agent.trainer import Trainer
from device_agent.engines.engine import Engine
from device_agent.engines.open import open_engine
from device_agent.limits import Limits
from device_agent.profiling.machine import measure_profile
from edge_coordinator.job.file import load_job
from edge_coordinator.job.job import Job
from edge_coordinator.job.prepare import prepare_job
from edge_coordinator.run.checkpoint import START, Reached
from edge_coordinator.run.directory import RunDirectory
from edge_coordinator.run.events import Observer, Progress, RoundDone
from edge_coordinator.serve.training import new_status, serve_on
from edge_coordinator.training.edge_model import EdgeModel
from runtime.bus.bus import Will
from runtime.bus.memory_bus import MemoryBroker
from runtime.datasets.samples import DataSet, Samples
from runtime.plugins import AllowedCode
from runtime.wire.commands import Assignment
from runtime.wire.frames import Tensor
from runtime.wire.ownership import new_session
from runtime.wire.published import DeviceProfile, DeviceStatus, RoundReport
from runtime.wire.topics import Topics
from tests.noise import random_samples

MakeTrainer = Callable[..., Trainer]
"""Takes what `Trainer` takes."""


@dataclass
class Reports:
    """An observer that keeps the reports, and a run's progress that is not written down."""

    rounds: list[RoundReport] = field(default_factory=list)
    reached: Reached = START
    saved: EdgeModel | None = None

    def tell(self, progress: Progress) -> None:
        if isinstance(progress, RoundDone):
            self.rounds.append(progress.report)

    def return_to_sound(self, model: EdgeModel) -> int | None:  # noqa: ARG002 - nothing is kept
        return None

    def save(self, model: EdgeModel, reached: Reached) -> None:
        self.saved, self.reached = model, reached


def make_job(own: Mapping[str, Samples], overrides: Mapping[str, object]) -> tuple[Job, EdgeModel]:
    """A job for these devices, by hand; tested on some noise unless the devices evaluate."""
    shape = next(iter(own.values())).sample_shape
    test = random_samples(40, shape, num_classes=10, seed=1)
    data = DataSet(train=test, test=test, num_classes=10, name="noise")
    by_hand = {"devices.count": len(own), "plan.mode": "by_hand"}
    settings = load_job(None, by_hand | dict(overrides))
    return prepare_job(settings, run=7, base_dir=Path(), data=data)


async def run_job(
    own: Mapping[str, Samples | OwnData],
    overrides: Mapping[str, object],
    *,
    broker: MemoryBroker,
    progress: RunDirectory | None = None,
    prepared: tuple[Job, EdgeModel] | None = None,
    engines: Sequence[str] = ("torch",),
    observer: Observer | None = None,
    own_threads: bool = False,
    reached: Reached = START,
    make_trainer: MakeTrainer = Trainer,
) -> tuple[EdgeModel, list[RoundReport]]:
    """Run a whole job over a memory bus: the model at the end, and the reports.

    `progress` also writes the run down; `prepared` is a job to go on with; the devices take
    `engines` in turn, and compute in one thread, as in one process, unless they have `own_threads`.
    `reached` is where a run without a directory goes on from.
    """
    plain = {d: each.samples if isinstance(each, OwnData) else each for d, each in own.items()}
    job, model = prepared or make_job(plain, overrides)
    reports = Reports(reached=reached)
    observers: list[Observer] = [each for each in (reports, progress, observer) if each]
    agents = {
        device: partial(
            serve_agent, broker, device, samples, engine=engine, make_trainer=make_trainer
        )
        for (device, samples), engine in zip(own.items(), cycle(engines), strict=False)
    }
    async with _served(agents, own_threads=own_threads), broker.connect("coordinator") as bus:
        status, told = new_status(job.assignment.run), progress or reports
        await serve_on(bus, job, model, status=status, observers=observers, progress=told)
    return model, reports.rounds


@asynccontextmanager
async def _served(
    agents: Mapping[str, Callable[[ThreadPoolExecutor], Coroutine[object, object, None]]],
    *,
    own_threads: bool,
) -> AsyncIterator[None]:
    """Serve agents for the length of the block, each in a task with its id as its name."""
    with ExitStack() as threads:
        shared = _thread(threads)
        serving = [
            asyncio.create_task(serve(_thread(threads) if own_threads else shared), name=device)
            for device, serve in agents.items()
        ]
        try:
            yield
        finally:
            for each in serving:
                each.cancel()
            await asyncio.gather(*serving, return_exceptions=True)


def _thread(threads: ExitStack) -> ThreadPoolExecutor:
    return threads.enter_context(ThreadPoolExecutor(1, "compute", torch.set_num_threads, (1,)))


async def serve_agent(
    broker: MemoryBroker,
    device: str,
    samples: Samples | OwnData,
    compute: ThreadPoolExecutor,
    *,
    engine: str = "torch",
    make_trainer: MakeTrainer = Trainer,
) -> None:
    """Serve one device on a memory bus until cancelled."""
    data = samples if isinstance(samples, OwnData) else OwnData(device, samples)
    status = DeviceStatus(
        state="online", session=new_session(), since_unix_s=time.time(), engine=engine
    )
    offline = status.model_copy(update={"state": "offline"})
    topics = Topics("default")
    will = Will(topics.status(device), offline.encode())
    async with broker.connect(f"{device}-{status.session}", will=will) as bus:
        agent = Agent(
            endpoint=DeviceEndpoint(device, bus, topics, chunk_bytes=2000),
            status=status,
            profile=partial(_profile_of, data, device, engine=engine),
            trainer=make_trainer(device, data, partial(_engine, engine), probe_s=0.0),
            compute=compute,
        )
        await agent.serve()


def _profile_of(data: OwnData, device: str, *, engine: str) -> DeviceProfile:
    shape = data.samples.sample_shape
    facts = measure_profile(
        device, engine=engine, num_samples=len(data.samples), sample_shape=shape
    )
    return facts.model_copy(update={"training_samples": data.num_training})


def _engine(name: str, assignment: Assignment, sample_shape: tuple[int, ...]) -> Engine:
    own_code = Limits(AllowedCode((assignment.network, assignment.loss)))
    return open_engine(name, assignment, sample_shape=sample_shape, limits=own_code)


def weights_of(model: EdgeModel) -> dict[str, Tensor]:
    """Copies of a model's parameters and buffers."""
    return {name: np.array(t.numpy()) for name, t in model.network.state_dict().items()}


def same_bits(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    """Whether two sets of weights are equal to the last bit."""
    return left.keys() == right.keys() and all(
        left[name].tobytes() == right[name].tobytes() for name in left
    )


def largest_difference(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    """Largest absolute difference between two sets of weights."""
    return max(
        float(np.abs(left[name].astype(np.float64) - right[name].astype(np.float64)).max())
        for name in left
    )


def as_torch(x: Tensor) -> torch.Tensor:
    """A tensor of these values."""
    return torch.from_numpy(np.array(x))
