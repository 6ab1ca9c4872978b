"""Devices that are slow for once, go, or come back: what it costs the others."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from device_agent.agent.trainer import Trainer
from edge_coordinator.run.events import ClusterStarted, Progress, RoundPlanned
from runtime.bus.memory_bus import MemoryBroker
from runtime.protocol.events import Prepared
from runtime.wire.commands import Assignment
from runtime.wire.frames import StepId, Tensor
from runtime.wire.published import DeviceStatus, PlanReport
from runtime.wire.topics import Topics
from tests.builders import run_job, same_bits, serve_agent, weights_of
from tests.noise import shards

SETTINGS: dict[str, object] = {
    "model.name": "mlp",
    "plan.cut": "fc1",
    "plan.clusters": 2,
    "training.local_epochs": 2,
}
OWN = shards((40, 20, 30, 25), (1, 28, 28))
TOPICS = Topics("default")


@dataclass
class Plans:
    """Keeps what was planned."""

    plans: list[PlanReport] = field(default_factory=list)

    def tell(self, progress: Progress) -> None:
        if isinstance(progress, RoundPlanned):
            self.plans.append(progress.plan)


async def test_a_late_device_is_asked_for_nothing_until_its_answer_comes_and_is_back_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told, answers = Plans(), threading.Event()
    forward = Trainer._forward

    def slow_for_once(trainer: Trainer, step: StepId) -> tuple[Tensor, ...]:
        if trainer._device == "d0" and (step.round, step.epoch) == (2, 0):
            answers.wait()
        elif step.round == 4:
            answers.set()
        elif step.round > 4:
            time.sleep(0.05)
        return forward(trainer, step)

    monkeypatch.setattr(Trainer, "_forward", slow_for_once)
    settings = SETTINGS | {"training.rounds": 8, "devices.margin_s": 0.5}
    _, rounds = await run_job(OWN, settings, broker=MemoryBroker(), observer=told, own_threads=True)
    assert [list(report.lost) for report in rounds] == [[], ["d0"], *[[]] * 6]
    why = "was late, and is at its answer of round 2 still"
    assert [plan.left_out for plan in told.plans[:3]] == [{}, {}, {"d0": why}]
    assert not told.plans[-1].left_out


@dataclass
class Disturbance:
    """Does something once, when the first cluster of the second round has its turn."""

    what: Callable[[], Coroutine[None, None, None]]
    task: asyncio.Task[None] | None = None

    def tell(self, progress: Progress) -> None:
        if isinstance(progress, ClusterStarted) and (progress.round, progress.cluster) == (2, 0):
            self.task = self.task or asyncio.create_task(self.what())


async def test_a_broker_that_publishes_the_wills_when_it_stops_costs_no_device() -> None:
    settings, broker = SETTINGS | {"training.rounds": 3}, MemoryBroker()
    calm, _ = await run_job(OWN, settings, broker=MemoryBroker())

    async def stop_and_start() -> None:
        for device in ("d0", "d2"):
            status = DeviceStatus.decode(broker.retained[TOPICS.status(device)])
            offline = status.model_copy(update={"state": "offline"})
            broker.route(TOPICS.status(device), offline.encode(), retain=True)
        clients = list(broker.clients.values())
        broker.stop()
        broker.start()
        for client in clients:
            client.restore()

    disturbance = Disturbance(stop_and_start)
    model, rounds = await run_job(OWN, settings, broker=broker, observer=disturbance)
    assert disturbance.task is not None
    assert disturbance.task.done()
    assert not any(report.lost for report in rounds)
    assert same_bits(weights_of(model), weights_of(calm))


async def test_a_device_restarted_between_its_join_and_its_turn_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker, is_back = MemoryBroker(), threading.Event()
    forward, prepare = Trainer._forward, Trainer.prepare

    def wait_for_d3(trainer: Trainer, step: StepId) -> tuple[Tensor, ...]:
        if trainer._device == "d0" and step.round == 2:
            is_back.wait()
            time.sleep(0.1)
        return forward(trainer, step)

    def prepare_again(trainer: Trainer, assignment: Assignment) -> Prepared:
        prepared = prepare(trainer, assignment)
        if trainer._device == "d3" and disturbance.task:
            is_back.set()
        return prepared

    monkeypatch.setattr(Trainer, "_forward", wait_for_d3)
    monkeypatch.setattr(Trainer, "prepare", prepare_again)
    with ThreadPoolExecutor(1, "compute") as compute:

        async def restart() -> None:
            (old,) = [task for task in asyncio.all_tasks() if task.get_name() == "d3"]
            old.cancel()
            await serve_agent(broker, "d3", OWN["d3"], compute)

        disturbance = Disturbance(restart)
        settings = SETTINGS | {"training.rounds": 3}
        _, rounds = await run_job(
            OWN, settings, broker=broker, observer=disturbance, own_threads=True
        )
        assert disturbance.task is not None
        disturbance.task.cancel()
        await asyncio.gather(disturbance.task, return_exceptions=True)
    assert [report.lost for report in rounds] == [{}, {"d3": "was restarted"}, {}]


async def test_a_device_that_only_seems_to_be_there_does_not_hold_up_the_start() -> None:
    broker = MemoryBroker()
    ghost = DeviceStatus(state="online", session="dead", since_unix_s=1.0, engine="torch")
    broker.route(TOPICS.status("ghost"), ghost.encode(), retain=True)
    settings = SETTINGS | {"training.rounds": 1, "devices.patience_s": 600.0}
    async with asyncio.timeout(100):
        _, rounds = await run_job(OWN, settings, broker=broker)
    assert rounds[0].num_devices == 4
