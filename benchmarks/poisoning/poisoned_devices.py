"""Runs in this process with one device that sends poison: real agents on a bus of memory."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from device_agent.agent.agent import Agent
from device_agent.agent.endpoint import DeviceEndpoint
from device_agent.agent.trainer import Result, Trainer
from device_agent.engines.open import open_engine
from device_agent.profiling.machine import measure_profile
from edge_coordinator.job.file import load_job
from edge_coordinator.job.prepare import prepare_job
from edge_coordinator.job.settings import device_names
from edge_coordinator.run.checkpoint import START, Reached
from edge_coordinator.run.directory import RunDirectory
from edge_coordinator.run.events import Progress, RoundDone, RoundPlanned
from edge_coordinator.serve.training import new_status, serve_on
from edge_coordinator.training.edge_model import EdgeModel
from runtime.bus.memory_bus import MemoryBroker
from runtime.datasets.partition import partition
from runtime.datasets.samples import DataSet, Samples
from runtime.protocol.events import BackwardDone, ForwardDone, Work
from runtime.wire.frames import Tensor
from runtime.wire.ownership import new_session
from runtime.wire.published import DeviceStatus, RoundReport
from runtime.wire.topics import Topics

Tensors = tuple[Tensor, ...]
Change = Callable[[Tensors, np.random.Generator], Tensors]


@dataclass(frozen=True)
class Attack:
    """What a device changes of what it sends."""

    of_smashed: Change | None = None
    """Of smashed data and labels."""
    of_weights: Change | None = None
    rounds: range | None = None
    """In which it attacks; all of them if none are given."""

    def is_on(self, round_: int) -> bool:
        """Whether it attacks in a round."""
        return self.rounds is None or round_ in self.rounds


def _scaled(factor: float) -> Change:
    def scale(tensors: Tensors, _: np.random.Generator) -> Tensors:
        largest = np.finfo(np.float32).max
        return tuple(
            np.clip(factor * each.astype(np.float64), -largest, largest).astype(each.dtype)
            if each.dtype.kind == "f"
            else each
            for each in tensors
        )

    return scale


def _noisy(tensors: Tensors, generator: np.random.Generator) -> Tensors:
    """Add noise as large as the values themselves."""
    return tuple(
        _with_noise(each, generator) if each.dtype.kind == "f" else each for each in tensors
    )


def _with_noise(tensor: Tensor, generator: np.random.Generator) -> Tensor:
    values = tensor.astype(np.float64)
    noise = generator.normal(0.0, float(values.std()) + 1e-3, values.shape)
    return (values + noise).astype(tensor.dtype)


def _flipped_labels(tensors: Tensors, _: np.random.Generator) -> Tensors:
    smashed, labels = tensors
    return smashed, (9 - labels.astype(np.int64)).astype(labels.dtype)


def _one_bad_value(tensors: Tensors, _: np.random.Generator) -> Tensors:
    smashed, labels = tensors
    bad = smashed.copy()
    bad.reshape(-1)[:1] = 1e30
    return bad, labels


def _largest(tensors: Tensors, _: np.random.Generator) -> Tensors:
    return tuple(np.full_like(each, 3e38) if each.dtype.kind == "f" else each for each in tensors)


ATTACKS: Mapping[str, Attack] = {
    "weights x 10": Attack(of_weights=_scaled(10.0)),
    "weights x 1e6": Attack(of_weights=_scaled(1e6)),
    "weights 3e38": Attack(of_weights=_largest),
    "weights x -1": Attack(of_weights=_scaled(-1.0)),
    "noise on weights": Attack(of_weights=_noisy),
    "noise on smashed data": Attack(of_smashed=lambda t, g: (_noisy(t[:1], g)[0], t[1])),
    "one value of 1e30": Attack(of_smashed=_one_bad_value),
    "labels flipped": Attack(of_smashed=_flipped_labels),
}


class PoisonedTrainer(Trainer):
    """Trains as others do, and then changes what it says of it."""

    attack = Attack()
    generator = np.random.default_rng(0)

    def run(self, work: Sequence[Work]) -> Result:
        """Do the work; the result, changed."""
        result = super().run(work)
        if isinstance(result, BackwardDone):
            return result
        is_forward = isinstance(result, ForwardDone)
        change = self.attack.of_smashed if is_forward else self.attack.of_weights
        if change is None or not self.attack.is_on(result.step.round):
            return result
        return replace(result, tensors=change(result.tensors, self.generator))


@dataclass
class Told:
    """What was told of a run; nothing of it is written down."""

    rounds: list[RoundReport] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)
    reached: Reached = START

    def tell(self, progress: Progress) -> None:
        """Keep what a run is judged by."""
        match progress:
            case RoundDone(report):
                self.rounds.append(report)
            case RoundPlanned(plan, _):
                self.excluded |= plan.left_out

    def return_to_sound(self, model: EdgeModel) -> int | None:
        """Nothing to go back to."""

    def save(self, model: EdgeModel, reached: Reached) -> None:
        """Nothing to go on with."""


def deal(data: DataSet, kind: str, *, num_devices: int, seed: int) -> dict[str, Samples]:
    """Share samples out as local mode does."""
    parts = partition(data.train.y, kind, num_devices=num_devices, seed=seed)
    names = device_names(num_devices)
    return {name: data.train.take(part) for name, part in zip(names, parts, strict=True)}


async def train(
    data: DataSet,
    settings: Mapping[str, object],
    *,
    num_devices: int,
    attack: Attack,
    attackers: Sequence[str],
    absent: Sequence[str] = (),
    folder: Path | None = None,
) -> Told:
    """Run a job by hand with real agents in this process, some of which attack.

    Those that are absent have data that nobody sees. With a folder the run is written down there,
    and goes on from what is there.
    """
    count = num_devices - len(absent)
    by_hand = {"devices.count": count, "plan.mode": "by_hand", **settings}
    job, model = prepare_job(load_job(None, by_hand), run=7, base_dir=Path(), data=data)
    own = deal(data, job.settings.data.partition, num_devices=num_devices, seed=job.settings.seed)
    broker, told = MemoryBroker(), Told()
    written = RunDirectory.resume(folder, model, rules=job.settings.evaluation) if folder else None
    present = {
        name: (samples, attack if name in attackers else Attack())
        for name, samples in own.items()
        if name not in absent
    }
    async with _agents(broker, present), broker.connect("coordinator") as bus:
        await serve_on(
            bus,
            job,
            model,
            status=new_status(7),
            observers=[told, written] if written else [told],
            progress=written or told,
        )
    return told


@asynccontextmanager
async def _agents(
    broker: MemoryBroker, own: Mapping[str, tuple[Samples, Attack]]
) -> AsyncIterator[None]:
    """Serve devices, which compute in one thread, as in one process."""
    with ThreadPoolExecutor(1, "compute", torch.set_num_threads, (1,)) as compute:
        agents = [
            asyncio.create_task(_serve(broker, name, samples, compute, attack), name=name)
            for name, (samples, attack) in own.items()
        ]
        try:
            yield
        finally:
            for agent in agents:
                agent.cancel()
            await asyncio.gather(*agents, return_exceptions=True)


async def _serve(
    broker: MemoryBroker, device: str, samples: Samples, compute: ThreadPoolExecutor, attack: Attack
) -> None:
    status = DeviceStatus(
        state="online", session=new_session(), since_unix_s=time.time(), engine="torch"
    )
    trainer = PoisonedTrainer(
        device, samples, lambda a, shape: open_engine("torch", a, sample_shape=shape), probe_s=0.0
    )
    trainer.attack, trainer.generator = attack, np.random.default_rng(0)
    profile = partial(
        measure_profile,
        device,
        engine="torch",
        num_samples=len(samples),
        sample_shape=samples.sample_shape,
    )
    async with broker.connect(f"{device}-{status.session}") as bus:
        agent = Agent(
            endpoint=DeviceEndpoint(device, bus, Topics("default"), chunk_bytes=262_144),
            status=status,
            profile=profile,
            trainer=trainer,
            compute=compute,
        )
        await agent.serve()
