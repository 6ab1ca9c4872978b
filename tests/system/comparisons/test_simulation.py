"""A simulation ends in the weights of the real run, and counts the bytes that it sends."""

from collections.abc import Mapping

import pytest

from edge_coordinator.simulation.simulation import SimulatedRound, Simulation
from edge_coordinator.training.edge_model import EdgeModel
from profiles.phases import Phase
from runtime.bus.memory_bus import MemoryBroker
from runtime.datasets.samples import Samples
from runtime.errors import DivergedError
from runtime.scenarios.files import load_scenario
from tests.builders import Reports, make_job, run_job, same_bits, weights_of
from tests.noise import shards

SHAPE = (1, 28, 28)
SIZES = (40, 12, 25, 33, 18)  # One device has less than a mini-batch.


async def _simulated(
    own: Mapping[str, Samples], settings: Mapping[str, object], *, scenario: str
) -> tuple[EdgeModel, list[SimulatedRound]]:
    job, model = make_job(own, settings)
    simulation = Simulation(job, model, own, load_scenario(scenario))
    return model, await simulation.run(observers=[], progress=Reports())


@pytest.mark.parametrize("method", ["cpsl", "sl", "fl", "cl"])
async def test_a_simulation_ends_in_the_weights_and_bytes_of_the_real_run(method: str) -> None:
    own = shards(SIZES, SHAPE)
    settings: dict[str, object] = {
        "model.options": {"dropout": 0.2},
        "training.method": method,
        "training.rounds": 3,
        "training.local_epochs": 2,
        "plan.clusters": 2,
        "broker.chunk_bytes": 2000,  # As the test's agents have it.
    }
    real, reports = await run_job(own, settings, broker=MemoryBroker())
    simulated, rounds = await _simulated(own, settings, scenario="mixed")
    assert same_bits(weights_of(real), weights_of(simulated))
    for told, done in zip(reports, rounds, strict=True):
        assert (told.up_bytes, told.down_bytes) == (done.report.up_bytes, done.report.down_bytes)
        assert (told.train_loss, told.test_loss) == (done.report.train_loss, done.report.test_loss)


async def test_a_simulation_evaluates_on_the_devices_as_the_real_run_does() -> None:
    own = shards(SIZES, SHAPE)
    settings: dict[str, object] = {
        "data.test": "devices",
        "data.held_out": 0.25,
        "training.rounds": 2,
    }
    _, reports = await run_job(own, settings, broker=MemoryBroker())
    _, rounds = await _simulated(own, settings, scenario="uniform")
    for told, done in zip(reports, rounds, strict=True):
        assert done.report.evaluated_on == "devices"
        assert done.report.test_loss == told.test_loss
        assert done.report.test_accuracy == told.test_accuracy


async def test_planned_rounds_take_the_seconds_that_their_phases_add_up_to() -> None:
    own = shards(SIZES, SHAPE)
    settings: dict[str, object] = {"plan.mode": "auto", "training.rounds": 3}
    _, rounds = await _simulated(own, settings, scenario="fading")
    for done in rounds:
        assert done.costs.phase_s.sum() == pytest.approx(done.report.round_s)
    assert rounds[-1].report.elapsed_s == pytest.approx(sum(d.report.round_s for d in rounds))


@pytest.mark.parametrize("method", ["cpsl", "sl", "fl", "cl"])
async def test_every_method_pays_for_its_phases_and_nothing_else(method: str) -> None:
    settings: dict[str, object] = {
        "training.method": method,
        "training.rounds": 1,
        "training.local_epochs": 3,
    }
    _, (done,) = await _simulated(shards(SIZES, SHAPE), settings, scenario="mixed")
    assert done.costs.phase_s.sum() == pytest.approx(done.report.round_s)


@pytest.mark.parametrize("method", ["cpsl", "sl", "fl"])
async def test_a_cut_after_the_last_layer_costs_what_it_sends(method: str) -> None:
    """The server computes the loss there, unless the method is federated averaging."""
    settings: dict[str, object] = {
        "training.method": method,
        "training.rounds": 1,
        "training.local_epochs": 3,
        "plan.cut": "fc3",
    }
    _, (done,) = await _simulated(shards([20] * 5, SHAPE), settings, scenario="mixed")
    assert done.costs.phase_s.sum() == pytest.approx(done.report.round_s)
    assert (done.costs.phase_s[[Phase.UPLOAD, Phase.DOWNLOAD]] > 0).all() == (method != "fl")
    headers = [
        done.report.up_bytes - done.costs.table_up_bytes,
        done.report.down_bytes - done.costs.table_down_bytes,
    ]
    outputs = 5 * 3 * 16 * 10 * 4  # devices, local epochs, mini-batch, classes, bytes
    assert all(0 < num_bytes < outputs / 2 for num_bytes in headers)


@pytest.mark.parametrize("method", ["cpsl", "sl", "fl", "cl"])
async def test_training_that_diverges_is_said_in_one_sentence(method: str) -> None:
    settings: dict[str, object] = {
        "training.method": method,
        "training.rounds": 20,
        "training.server_optimizer.learning_rate": 1e30,
    }
    with pytest.raises(DivergedError, match="diverged"):
        await _simulated(shards(SIZES, SHAPE), settings, scenario="uniform")


@pytest.mark.parametrize(
    ("own", "plan"),
    [
        (shards(SIZES, SHAPE), {"plan.mode": "auto", "plan.cut": "pool1"}),
        (shards(6 * SIZES, SHAPE), {"plan.mode": "auto", "plan.clusters": 6, "plan.cut_every": 3}),
    ],
    ids=["planned groups", "planned cut"],
)
async def test_equal_seeds_give_equal_simulations_and_checkpoints_go_on_to_the_same_bits(
    own: Mapping[str, Samples], plan: Mapping[str, object]
) -> None:
    scenario = load_scenario("heterogeneous")
    constant = {"training.schedule.name": "constant"}  # Else a run of half the rounds differs.
    settings: dict[str, object] = {"training.rounds": 4, **constant, **plan}
    whole, rounds = await _simulated(own, settings, scenario="heterogeneous")
    half_settings = settings | {"training.rounds": 2}
    job, model = make_job(own, half_settings)
    reports = Reports()
    first = await Simulation(job, model, own, scenario).run(observers=[], progress=reports)
    resumed, _ = make_job(own, settings)
    rest = await Simulation(resumed, model, own, scenario).run(observers=[], progress=reports)
    assert same_bits(weights_of(whole), weights_of(model))
    both = [*first, *rest]
    assert [done.report.elapsed_s for done in both] == [done.report.elapsed_s for done in rounds]
