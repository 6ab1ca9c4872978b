"""Strategies of the user's own, by name: taken, and refused in a sentence."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from edge_coordinator.api.strategies import FinishedRound, Models, Standing
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
