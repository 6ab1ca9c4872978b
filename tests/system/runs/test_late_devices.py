"""Devices that are slow for once, go, or come back: what it costs the others."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from device_agent.agent.trainer import BuildEngine, Result, Trainer
from edge_coordinator.run.events import ClusterStarted, Progress, RoundPlanned
from runtime.bus.bus import Delivery
from runtime.bus.memory_bus import MemoryBroker
from runtime.datasets.samples import Samples
from runtime.protocol.events import RunForward, Work
from runtime.wire.commands import Ready
from runtime.wire.control import decode_reply
from runtime.wire.frames import StepId, decode_chunk
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


class WatchedTrainer(Trainer):
    """Tells of each forward pass, in the thread that computes, before it begins it."""

    def __init__(
        self,
        before: Callable[[str, StepId], None],
        device: str,
        samples: Samples,
        build_engine: BuildEngine,
        *,
        probe_s: float,
    ) -> None:
        super().__init__(device, samples, build_engine, probe_s=probe_s)
        self._tell = partial(before, device)

    def run(self, work: Sequence[Work]) -> Result:
        """Tell, and do it."""
        for command in work:
            if isinstance(command, RunForward):
                self._tell(command.step)
        return super().run(work)


@asynccontextmanager
async def hearing_of(
    broker: MemoryBroker, topic: str, hear: Callable[[memoryview], None]
) -> AsyncIterator[None]:
    """Have a client of the broker hear what is said on a topic, as soon as the coordinator does."""

    async def listen() -> None:
        async for event in bus.events():
            if isinstance(event, Delivery):
                hear(event.payload)

    async with broker.connect("listener") as bus:
        await bus.subscribe(topic)
        listening = asyncio.create_task(listen())
        yield
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_a_late_device_is_asked_for_nothing_until_its_answer_comes_and_is_back_then() -> None:
    told, may_answer, has_answered = Plans(), threading.Event(), threading.Event()

    def slow_for_once(device: str, step: StepId) -> None:
        if device == "d0" and (step.round, step.epoch) == (2, 0):
            may_answer.wait()
        elif step.round == 4:
            may_answer.set()
        elif step.round > 4:
            has_answered.wait()

    def hear(payload: memoryview) -> None:
        chunk = decode_chunk(payload)
        if (chunk.step.round, chunk.index) == (2, chunk.num_chunks - 1):
            has_answered.set()

    broker, make_trainer = MemoryBroker(), partial(WatchedTrainer, slow_for_once)
    settings = SETTINGS | {"training.rounds": 8, "devices.margin_s": 0.5}
    async with hearing_of(broker, TOPICS.up("d0", "smashed"), hear):
        _, rounds = await run_job(
            OWN,
            settings,
            broker=broker,
            observer=told,
            own_threads=True,
            make_trainer=make_trainer,
        )
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


async def test_a_device_restarted_between_its_join_and_its_turn_is_not_waited_for() -> None:
    broker, is_back = MemoryBroker(), threading.Event()

    def wait_for_d3(device: str, step: StepId) -> None:
        if device == "d0" and step.round == 2:
            is_back.wait()

    def hear(payload: memoryview) -> None:
        if disturbance.task and isinstance(decode_reply(payload), Ready):
            is_back.set()

    with ThreadPoolExecutor(1, "compute") as compute:

        async def restart() -> None:
            (old,) = [task for task in asyncio.all_tasks() if task.get_name() == "d3"]
            old.cancel()
            await serve_agent(broker, "d3", OWN["d3"], compute)

        disturbance = Disturbance(restart)
        settings = SETTINGS | {"training.rounds": 3}
        async with hearing_of(broker, TOPICS.reply("d3"), hear):
            _, rounds = await run_job(
                OWN,
                settings,
                broker=broker,
                observer=disturbance,
                own_threads=True,
                make_trainer=partial(WatchedTrainer, wait_for_d3),
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
