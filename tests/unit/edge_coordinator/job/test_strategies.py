"""Strategies of the user's own, by name: taken, and refused in a sentence."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from edge_coordinator.api.strategies import (
    CutTask,
    FinishedRound,
    GroupingTask,
    Models,
    Progress,
    RoundPlanned,
    Standing,
)
from edge_coordinator.simulation.simulation import Simulation
from runtime.bus.memory_bus import MemoryBroker
from runtime.errors import SettingsError
from runtime.scenarios.files import load_scenario
from runtime.wire.frames import Tensor
from tests.builders import Reports, make_job, run_job, same_bits, weights_of
from tests.noise import shards

SHAPE = (1, 28, 28)
HERE = __name__


def first_device(
    models: Models,
    sample_counts: Mapping[str, int],  # noqa: ARG001
    before: Sequence[Tensor],  # noqa: ARG001
) -> Sequence[Tensor]:
    """Take the model of one device alone."""
    return models[min(models)]


def nothing(*_: object) -> Sequence[Tensor]:
    """Give no model at all."""
    return ()


def after_two(report: FinishedRound, standing: Standing) -> str:
    """Stop when two rounds were evaluated."""
    assert standing.best is not None
    return "two will do" if report.round == 2 else ""


async def _simulated(settings: Mapping[str, object]) -> tuple[Mapping[str, Tensor], int]:
    own = shards((20, 24), SHAPE)
    job, model = make_job(own, {"plan.clusters": 1, **settings})
    rounds = await Simulation(job, model, own, load_scenario("mixed")).run(
        observers=[], progress=Reports()
    )
    return weights_of(model), len(rounds)


async def test_an_aggregation_of_ones_own_is_that_of_real_runs_and_simulations() -> None:
    own = {"training.aggregation": f"{HERE}:first_device", "training.rounds": 1}
    settings = {**own, "plan.clusters": 1}
    real, _ = await run_job(shards((20, 24), SHAPE), settings, broker=MemoryBroker())
    simulated, _ = await _simulated(own)
    assert same_bits(weights_of(real), simulated)
    averaged, _ = await _simulated({"training.rounds": 1})
    assert not np.array_equal(simulated["conv1.weight"], averaged["conv1.weight"])


async def test_a_rule_of_ones_own_ends_a_run() -> None:
    settings = {"training.rounds": 4, "evaluation.stop": f"{HERE}:after_two"}
    _, num_rounds = await _simulated(settings)
    assert num_rounds == 2


async def test_a_strategy_that_gives_what_is_none_is_refused_in_a_sentence() -> None:
    with pytest.raises(SettingsError, match="gave 0 tensors"):
        await _simulated({"training.aggregation": f"{HERE}:nothing"})
    with pytest.raises(SettingsError, match="there are mean, clipped, trimmed_mean, median, and"):
        await _simulated({"training.aggregation": "maen"})
    with pytest.raises(SettingsError, match=r"module .* has no 'soon'"):
        await _simulated({"evaluation.stop": f"{HERE}:soon"})


def slowest_alone(task: GroupingTask) -> list[list[str]]:
    """Give the slowest device a cluster of its own."""
    slowest = max(task.devices, key=lambda each: task.seconds_of([each.device])).device
    return [[slowest], [each.device for each in task.devices if each.device != slowest]]


def last_possible(task: CutTask) -> str:
    """Cut as late as can be."""
    assert len(task.devices) > 1
    return [price.name for price in task.prices if not price.infeasible][-1]


def one_forgotten(task: GroupingTask) -> list[list[str]]:
    """Leave out the last device."""
    return [[each.device for each in task.devices[:-1]]]


def beyond(_: CutTask) -> int:
    """Cut where there is nothing."""
    return 99


class ThenFails:
    """Groups once as it should, on real devices, and then no more."""

    def __init__(self) -> None:
        self.num_calls = 0

    def __call__(self, task: GroupingTask) -> list[list[str]]:
        self.num_calls += 1
        if self.num_calls > 2:  # The first is the trial.
            raise KeyError("gone")
        return slowest_alone(task)


class Plans:
    """Keeps the plans of a run."""

    def __init__(self) -> None:
        self.told: list[RoundPlanned] = []

    def tell(self, progress: Progress) -> None:
        if isinstance(progress, RoundPlanned):
            self.told.append(progress)


PLANNED = {"plan.mode": "auto", "plan.clusters": 2, "training.rounds": 3}


async def _planned(settings: Mapping[str, object]) -> tuple[Plans, Reports]:
    own = shards((20, 20, 20), SHAPE)
    job, model = make_job(own, {**PLANNED, **settings})
    plans, reports = Plans(), Reports()
    await Simulation(job, model, own, load_scenario("mixed")).run(
        observers=[plans, reports], progress=reports
    )
    return plans, reports


async def test_a_grouping_and_a_cut_of_ones_own_are_taken_and_named_in_the_reason() -> None:
    grouping, cut = f"{HERE}:slowest_alone", f"{HERE}:last_possible"
    plans, _ = await _planned({"plan.grouping": grouping, "plan.cut": cut})
    for told in plans.told:
        alone, others = sorted((c.devices for c in told.plan.clusters), key=len)
        assert (len(alone), len(others)) == (1, 2)
        assert told.plan.cut_layer == "relu4"
        assert f"grouped by {grouping}; the cut is that of {cut}" in told.plan.reason


@pytest.mark.parametrize(
    ("key", "code", "sentence"),
    [
        ("plan.grouping", "one_forgotten", "one_forgotten left out dev-1; it has to give lists"),
        ("plan.cut", "beyond", "beyond gave 99; it has to give one of conv1, relu1"),
        ("plan.cut", "slowest_alone", "slowest_alone raised AttributeError"),
    ],
)
async def test_what_is_no_plan_is_said_before_the_first_round(
    key: str, code: str, sentence: str
) -> None:
    with pytest.raises(SettingsError, match=sentence):
        make_job(shards((20, 20), SHAPE), PLANNED | {key: f"{HERE}:{code}"})


then_fails = ThenFails()


@pytest.mark.faults
async def test_a_grouping_that_fails_later_costs_no_round() -> None:
    plans, reports = await _planned({"plan.grouping": f"{HERE}:then_fails"})
    assert [report.faults for report in reports.rounds] == [{}, {"planning": 1}, {"planning": 1}]
    clusters = [[each.devices for each in told.plan.clusters] for told in plans.told]
    assert clusters[0] == clusters[1] == clusters[2]
    assert plans.told[2].plan.reason == "as in the round before: planning went wrong"
