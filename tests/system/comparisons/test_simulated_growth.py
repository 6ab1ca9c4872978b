"""Data that grow by a scenario: simulated, for real, replayed and resumed, in the same bits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from device_agent.agent.own_data import OwnData
from edge_coordinator.planning.plan import Plan
from edge_coordinator.run.checkpoint import START
from edge_coordinator.run.events import Progress, RoundDone
from edge_coordinator.simulation.simulation import SimulatedRound, Simulation
from edge_coordinator.training.edge_model import EdgeModel
from profiles.scenario import Scenario
from runtime.bus.memory_bus import MemoryBroker
from runtime.datasets.shard import in_order_of_arrival
from tests.builders import Reports, make_job, run_job, same_bits, weights_of
from tests.noise import shards

SHAPE = (1, 28, 28)
OWN = shards((80, 60, 70), SHAPE)
GROWTH = [{"from_round": 1, "samples": 20}, {"from_round": 3, "fraction": 1.0}]
SPEEDS = {"flop_per_s": 1e9, "up_bps": 1e7, "down_bps": 1e7}
GROWING = {**SPEEDS, "count": 2, "growth": GROWTH, "growth_order": "drawn"}
SCENARIO = Scenario.model_validate(
    {"name": "growing", "server_flop_per_s": 1e9, "devices": [SPEEDS, GROWING]}
)
SETTINGS: Mapping[str, object] = {
    "training.rounds": 4,
    "training.schedule.name": "constant",  # Else a run of half the rounds differs.
    "data.test": "devices",
    "data.held_out": 0.25,
    "plan.clusters": 1,
}


class Given:
    """The plans of a simulation."""

    is_exact = True

    def __init__(self, rounds: Sequence[SimulatedRound]) -> None:
        self._rounds = rounds

    def plan(self, round_: int, devices: Sequence[str]) -> Plan:
        if len(devices) < len(OWN):
            return Plan(3, (), reason="not all are there")
        return self._rounds[round_ - 1].plan

    def check_devices(self, devices: Sequence[str]) -> None:
        assert len(devices) == len(OWN)


async def _simulated(
    settings: Mapping[str, object] = SETTINGS,
    scenario: Scenario = SCENARIO,
    *,
    given: Given | None = None,
    of: tuple[EdgeModel, Reports] | None = None,
) -> tuple[EdgeModel, list[SimulatedRound]]:
    job, model = make_job(OWN, settings)
    model, reports = of or (model, Reports())
    simulation = Simulation(replace(job, given_plans=given), model, OWN, scenario)
    return model, await simulation.run(observers=[], progress=reports)


def _counts(rounds: Sequence[SimulatedRound]) -> list[tuple[int, ...]]:
    return [done.plan.clusters[0].num_samples for done in rounds]


class Arrives:
    """Has all devices get the rest of their data after a round."""

    def __init__(self, own: Mapping[str, OwnData], after: int) -> None:
        self._own, self._after = own, after

    def tell(self, progress: Progress) -> None:
        if isinstance(progress, RoundDone) and progress.report.round == self._after:
            for device, data in self._own.items():
                data.arrive(len(OWN[device]))


async def test_counts_follow_the_scenario_and_a_replay_ends_in_the_same_bits() -> None:
    model, rounds = await _simulated()
    few, all_ = _counts(rounds)[0], _counts(rounds)[-1]
    assert _counts(rounds) == [few, few, all_, all_]
    assert few[0] == all_[0] == 0  # Its data do not grow.
    assert all(0 < a <= 20 < b for a, b in zip(few[1:], all_[1:], strict=True))
    again, replayed = await _simulated(given=Given(rounds))
    assert _counts(replayed) == _counts(rounds)
    assert same_bits(weights_of(model), weights_of(again))
    all_the_time, _ = await _simulated(scenario=SCENARIO.without_growth())
    assert not same_bits(weights_of(model), weights_of(all_the_time))


@pytest.mark.parametrize("after", [2, 99], ids=["by then there", "named by the plan alone"])
async def test_real_devices_whose_data_are_there_bit_by_bit_end_in_the_same_bits(
    after: int,
) -> None:
    model, rounds = await _simulated()
    job, fresh = make_job(OWN, SETTINGS)
    own = {}
    for number, (device, samples) in enumerate(sorted(OWN.items())):
        stated, seed = SCENARIO.class_of(number), job.settings.seed
        ordered = in_order_of_arrival(device, samples, stated.growth_order, seed=seed)
        first = stated.num_there(len(samples), round_=1, elapsed_s=0.0)
        grows = bool(stated.growth)
        own[device] = OwnData(device, ordered, grows=grows, num_there=first if grows else None)
    job = replace(job, given_plans=Given(rounds))
    real, reports = await run_job(
        own, {}, broker=MemoryBroker(), prepared=(job, fresh), observer=Arrives(own, after)
    )
    assert same_bits(weights_of(model), weights_of(real))
    for told, done in zip(reports, rounds, strict=True):
        assert (told.lost, told.test_loss) == ({}, done.report.test_loss)


async def test_a_simulation_that_goes_on_in_the_midst_of_growth_ends_in_the_same_bits() -> None:
    whole, rounds = await _simulated()
    model, first = await _simulated({**SETTINGS, "training.rounds": 2})
    _, rest = await _simulated(of=(model, Reports(reached=replace(START, round=2))))
    assert same_bits(weights_of(whole), weights_of(model))
    assert _counts([*first, *rest]) == _counts(rounds)


async def test_a_device_that_has_far_more_than_others_counts_as_ten_times_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = shards((6, 8, 300), SHAPE)
    settings = {"training.rounds": 2, "plan.clusters": 1}
    real, _ = await run_job(own, settings, broker=MemoryBroker())
    job, model = make_job(own, settings)
    simulation = Simulation(job, model, own, SCENARIO.without_growth())
    await simulation.run(observers=[], progress=Reports())
    assert same_bits(weights_of(real), weights_of(model))
    said = (
        "d2 says that it has 300 samples, more than 10 times as many as most others; "
        "it counts as 80"
    )
    assert caplog.messages == [said, said]  # Once of the real run, and once of the simulation.
    counts = [state.num_samples for state in simulation.world.states(1, elapsed_s=0.0)]
    assert sorted(counts) == [6, 8, 80]
