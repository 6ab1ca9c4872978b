"""What is left to be seen of a coordinator once it has gone."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from edge_coordinator.progress import Progress, RoundDone
from edge_coordinator.serve import new_status, serve_on
from runtime.errors import SettingsError, root_cause
from runtime.memory import MemoryBroker
from runtime.published import CoordinatorStatus
from runtime.topics import Topics
from tests.builders import Reports, make_job, serve_agent, shards

STATUS = Topics("default").coordinator_status


class AtRound(Reports):
    """Does something once the first round is done."""

    def __init__(self, do: Callable[[], None]) -> None:
        super().__init__()
        self._do = do

    def tell(self, progress: Progress) -> None:
        super().tell(progress)
        if isinstance(progress, RoundDone) and progress.report.round == 1:
            self._do()


async def _fail(broker: MemoryBroker, do: Callable[[], None]) -> BaseException:
    """Train until what is done after the first round ends it; the error."""
    own = shards((40,), (1, 28, 28))
    settings = {"model.name": "mlp", "plan.cut": "fc1", "plan.clusters": 1}
    job, model = make_job(own, settings)
    reports = AtRound(do)
    with ThreadPoolExecutor(1, "compute", torch.set_num_threads, (1,)) as compute:
        agent = asyncio.create_task(serve_agent(broker, "d0", own["d0"], compute))
        try:
            async with broker.connect("coordinator") as bus:
                await serve_on(
                    bus, job, model, status=new_status(7), observers=[reports], progress=reports
                )
        except ExceptionGroup as errors:
            return root_cause(errors)
        finally:
            agent.cancel()
            await asyncio.gather(agent, return_exceptions=True)
    raise AssertionError("nothing failed")


def _retained(broker: MemoryBroker) -> CoordinatorStatus:
    return CoordinatorStatus.decode(broker._retained[STATUS])


async def test_a_coordinator_that_fails_is_offline() -> None:
    broker = MemoryBroker()

    def fail() -> None:
        raise SettingsError("the disk is full")

    assert str(await _fail(broker, fail)) == "the disk is full"
    assert (_retained(broker).state, _retained(broker).phase) == ("offline", "")


async def test_a_coordinator_says_no_goodbye_for_another() -> None:
    broker = MemoryBroker()
    older = CoordinatorStatus(state="online", session="older", since_unix_s=1.0)

    def take_over() -> None:
        broker.route(STATUS, older.encode(), retain=True)

    with pytest.raises(SettingsError, match="in use by another program"):
        raise await _fail(broker, take_over)
    assert _retained(broker) == older
