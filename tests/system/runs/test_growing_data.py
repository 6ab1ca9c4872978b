"""A device that goes on collecting: its counts are followed, and what was drawn is drawn again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from device_agent.agent.own_data import OwnData
from edge_coordinator.planning.plan import ClusterPlan, Plan
from edge_coordinator.run.events import Progress, RoundDone, RoundPlanned
from edge_coordinator.training.edge_model import EdgeModel
from runtime.bus.memory_bus import MemoryBroker
from runtime.datasets.samples import Samples
from runtime.datasets.shard import make_shard
from runtime.datasets.stored import Picked, Stored
from runtime.errors import SettingsError
from runtime.wire.frames import StepId
from runtime.wire.published import PlanReport
from tests.builders import make_job, run_job, same_bits, weights_of
from tests.noise import random_samples
from tests.turn import JOIN

SHAPE = (1, 28, 28)
FIRST, ALL = 24, 60
SETTINGS = {"plan.clusters": 1, "training.rounds": 5, "data.held_out": 0.25, "data.test": "devices"}


def all_of(device: str) -> Samples:
    return random_samples(ALL, SHAPE, num_classes=10, seed=len(device))


def made(num_samples: int) -> dict[str, OwnData]:
    return {
        device: OwnData(device, all_of(device).take(range(num_samples)), grows=True)
        for device in ("a", "bb")
    }


class Grows:
    """Gives one device the rest of its data after the first round, and keeps what was planned."""

    def __init__(self, data: OwnData, rest: Samples) -> None:
        self.plans: dict[int, PlanReport] = {}
        self._data, self._rest = data, rest

    def tell(self, progress: Progress) -> None:
        if isinstance(progress, RoundPlanned):
            self.plans[progress.plan.round] = progress.plan
        if isinstance(progress, RoundDone) and progress.report.round == 1:
            self._data.grow(self._rest)


@dataclass(frozen=True, eq=False)
class Unread:
    """Inputs that nobody is to read."""

    of: Stored

    @property
    def shape(self) -> tuple[int, ...]:
        return self.of.shape

    @property
    def dtype(self) -> object:
        return self.of.dtype

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, chosen: object) -> object:
        raise AssertionError(f"{chosen} is read")


@dataclass
class Recorded:
    """The plans of a run before."""

    plans: Mapping[int, PlanReport]
    is_exact: bool = True

    def plan(self, round_: int, devices: Sequence[str]) -> Plan:
        if len(devices) < 2:
            return Plan(3, (), reason="not all are there")
        (cluster,) = self.plans[round_].clusters
        counts = cluster.num_samples or ()
        own = ClusterPlan(cluster.devices, cluster.shares, num_samples=counts)
        return Plan(self.plans[round_].cut, (own,))

    def check_devices(self, devices: Sequence[str]) -> None:
        assert len(devices) == 2


async def _run(
    own: Mapping[str, OwnData], plans: Recorded | None = None, observer: Grows | None = None
) -> EdgeModel:
    job, model = make_job({device: all_of(device) for device in own}, SETTINGS)
    job = replace(job, given_plans=plans or job.given_plans)
    trained, rounds = await run_job(
        own, {}, broker=MemoryBroker(), prepared=(job, model), observer=observer
    )
    assert [report.lost for report in rounds] == [{}] * 5
    return trained


async def test_counts_follow_what_a_device_collects_and_a_replay_draws_the_same() -> None:
    own = made(FIRST)
    observer = Grows(own["a"], all_of("a"))
    first = await _run(own, observer=observer)
    counts = [plan.clusters[0].num_samples for plan in observer.plans.values()]
    job, _ = make_job({"a": all_of("a")}, SETTINGS)
    kept = {
        (device, size): len(
            make_shard(device, job.assignment, made(size)[device].samples, grows=True).kept
        )
        for device in own
        for size in (FIRST, ALL)
    }
    before, after = ((kept["a", size], kept["bb", FIRST]) for size in (FIRST, ALL))
    assert counts[:2] == [before, before]  # Told at the end of a turn, taken over between rounds.
    assert counts[-1] == after
    # Devices that were started again when all was there draw what was drawn then.
    again = await _run(made(ALL), Recorded(observer.plans))
    assert same_bits(weights_of(first), weights_of(again))


def test_what_follows_changes_nothing_of_what_was_there() -> None:
    job, _ = make_job({"a": all_of("a")}, SETTINGS)
    few, many = made(FIRST)["a"], made(FIRST)["a"]
    for data in (few, many):
        data.prepare(job.assignment)
    assert many.grow(all_of("a")) == ALL - FIRST
    assert few.num_training is not None
    assert many.num_training is not None
    assert many.num_training > few.num_training
    step = StepId(job.assignment.run, 3, 0, 1)
    as_before = JOIN.model_copy(update={"num_samples": few.num_training})
    drawn = [each.of_turn(as_before).draw(step) for each in (few, many)]
    assert all(map(np.array_equal, *drawn))
    assert np.array_equal(many.told.held_out, few.told.held_out)


def test_data_that_moved_are_not_taken_over_and_those_that_are_there_stay() -> None:
    data = made(FIRST)["a"]
    shuffled = all_of("a").take(np.random.default_rng(0).permutation(ALL))
    for other in (shuffled, all_of("a").take(range(FIRST - 1))):
        with pytest.raises(
            SettingsError, match="no longer where it was, so it goes on with the 24"
        ):
            data.grow(other)
    assert len(data.samples) == FIRST


@pytest.mark.parametrize("is_drawn", [False, True], ids=["in memory", "read when drawn"])
def test_samples_that_arrive_are_neither_copied_nor_read(is_drawn: bool) -> None:  # noqa: FBT001
    samples = all_of("a")
    inputs = samples.stored
    if is_drawn:
        samples = replace(samples, stored=Picked(Unread(inputs), np.arange(ALL)))
    data = OwnData("a", samples, grows=True, num_there=1)
    for num_there in range(2, ALL + 1):
        assert data.arrive(num_there) == 1
        assert len(data.samples) == len(data.samples.y) == num_there
        assert np.shares_memory(data.samples.y, samples.y)
    if is_drawn:
        assert isinstance(data.samples.stored, Picked)
        assert isinstance(data.samples.stored.base, Unread)
    else:
        assert np.shares_memory(np.asarray(data.samples.stored), np.asarray(inputs))
