"""What is left to be seen of a coordinator once it has gone."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from edge_coordinator.run.events import Progress, RoundDone
from edge_coordinator.serve.training import new_status, serve_on
from runtime.bus.bus import Delivery
from runtime.bus.memory_bus import MemoryBroker
from runtime.errors import StorageError, TakenError, root_cause
from runtime.wire.commands import Stop
from runtime.wire.fields import Message
from runtime.wire.published import CoordinatorStatus
from runtime.wire.topics import Topics
from tests.builders import Reports, make_job, serve_agent
from tests.noise import shards
from tests.turn import ASSIGNMENT, JOIN, RUN

TOPICS = Topics("default")
STATUS = TOPICS.coordinator_status


class AtRound(Reports):
    """Does something once the first round is done."""

    def __init__(self, do: Callable[[], None]) -> None:
        super().__init__()
        self._do = do

    def tell(self, progress: Progress) -> None:
        super().tell(progress)
        if isinstance(progress, RoundDone) and progress.report.round == 1:
            self._do()


async def _train(
    broker: MemoryBroker, reports: Reports, *, num_devices: int, max_payload_bytes: int = 10**6
) -> None:
    own = shards((40,) * num_devices, (1, 28, 28))
    settings = {
        "model.name": "mlp",
        "plan.cut": "fc1",
        "plan.clusters": num_devices,
        "training.rounds": 3,
    }
    job, model = make_job(own, settings)
    with ThreadPoolExecutor(1, "compute", torch.set_num_threads, (1,)) as compute:
        agents = [
            asyncio.create_task(serve_agent(broker, device, samples, compute))
            for device, samples in own.items()
        ]
        try:
            async with broker.connect("coordinator", max_payload_bytes=max_payload_bytes) as bus:
                await serve_on(
                    bus, job, model, status=new_status(7), observers=[reports], progress=reports
                )
        finally:
            for agent in agents:
                agent.cancel()
            await asyncio.gather(*agents, return_exceptions=True)


async def _fail(broker: MemoryBroker, do: Callable[[], None]) -> BaseException:
    """Train until what is done after the first round ends it; the error."""
    try:
        await _train(broker, AtRound(do), num_devices=1)
    except ExceptionGroup as errors:
        return root_cause(errors)
    raise AssertionError("nothing failed")


def _retained(broker: MemoryBroker) -> CoordinatorStatus:
    return CoordinatorStatus.decode(broker.retained[STATUS])


async def test_a_coordinator_that_fails_is_offline() -> None:
    broker = MemoryBroker()

    def fail() -> None:
        raise StorageError("the disk is full")

    assert str(await _fail(broker, fail)) == "the disk is full"
    assert (_retained(broker).state, _retained(broker).phase) == ("offline", "")


async def test_a_coordinator_says_no_goodbye_for_another() -> None:
    broker = MemoryBroker()
    other = CoordinatorStatus(state="online", session="other", since_unix_s=1.0)
    holding: list[asyncio.Task[None]] = []

    async def hold() -> None:
        async with broker.connect("other") as bus:
            await bus.subscribe(STATUS)
            async for event in bus.events():
                if isinstance(event, Delivery) and event.payload != other.encode():
                    await bus.publish(STATUS, other.encode(), retain=True)

    def take_over() -> None:
        bus = broker.clients["coordinator"]
        bus.cut("the cable was pulled")
        bus.restore()
        holding.append(asyncio.create_task(hold()))

    with pytest.raises(TakenError, match="in use by another program"):
        raise await _fail(broker, take_over)
    for task in holding:
        task.cancel()
    await asyncio.gather(*holding, return_exceptions=True)
    assert _retained(broker).state == "online"  # Its own last word, or the other's.


@pytest.mark.parametrize(
    ("forged", "told"),
    [
        (ASSIGNMENT.model_copy(update={"run": 8}), "d0 drops assignment of run 0000000000000008"),
        (Stop(run=RUN), "d0 drops stop of run 0000000000000007"),
        (JOIN.model_copy(update={"round": 2**32 - 1}), "d0 is not in its turn any more; it gets"),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
async def test_whatever_a_forged_command_had_a_device_lose_it_gets_again_and_the_run_goes_on(
    forged: Message, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = MemoryBroker()
    reports = AtRound(lambda: broker.route(TOPICS.command("d0"), forged.encode(), retain=False))
    await _train(broker, reports, num_devices=2)
    assert [report.round for report in reports.rounds] == [1, 2, 3]
    assert reports.rounds[-1].num_devices == 2
    assert told in caplog.text


async def test_a_report_that_the_broker_does_not_take_is_told_of_once_and_the_run_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker, reports = MemoryBroker(), Reports()
    await _train(broker, reports, num_devices=8, max_payload_bytes=1200)
    assert len(reports.rounds) == 3
    assert _retained(broker).state == "offline"
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "on cpsl/default/round: the broker accepts at most 1200" in said[0]
