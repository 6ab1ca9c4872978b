"""Runs whose mini-batches go in micro-batches, through the bus: the bits do not depend on when."""

from collections.abc import Mapping

import pytest

from edge_coordinator.simulation.simulation import Simulation
from runtime.bus.memory_bus import MemoryBroker
from runtime.datasets.samples import Samples
from runtime.scenarios.files import load_scenario
from runtime.wire.frames import Tensor
from tests.builders import Reports, largest_difference, make_job, run_job, same_bits, weights_of
from tests.noise import shards

SHAPE = (1, 28, 28)
SIZES = (40, 3, 25, 18)  # One has fewer samples than micro-batches.
SETTINGS: Mapping[str, object] = {
    "model.options": {"dropout": 0.2},
    "training.micro_batches": 4,
    "training.rounds": 2,
    "training.local_epochs": 2,
    "plan.clusters": 2,
    "broker.chunk_bytes": 2000,  # As the test's agents have it.
}


async def _simulated(
    own: Mapping[str, Samples], settings: Mapping[str, object]
) -> tuple[dict[str, Tensor], list[tuple[int, int]]]:
    job, model = make_job(own, settings)
    simulation = Simulation(job, model, own, load_scenario("uniform"))
    rounds = await simulation.run(observers=[], progress=Reports())
    traffic = [(each.report.up_bytes, each.report.down_bytes) for each in rounds]
    return weights_of(model), traffic


@pytest.mark.parametrize("codec", [{}, {"codec.smashed": "int8", "codec.gradient": "int8"}])
async def test_devices_that_run_ahead_end_in_the_weights_and_bytes_of_a_simulation(
    codec: Mapping[str, object],
) -> None:
    own, settings = shards(SIZES, SHAPE), {**SETTINGS, **codec}
    real, reports = await run_job(own, settings, broker=MemoryBroker(), own_threads=True)
    simulated, traffic = await _simulated(own, settings)
    assert same_bits(weights_of(real), simulated)
    assert [(told.up_bytes, told.down_bytes) for told in reports] == traffic


async def test_both_engines_part_mini_batches_alike() -> None:
    own = shards(SIZES, SHAPE)
    engines = ("torch", "onnxruntime")
    mixed, _ = await run_job(own, SETTINGS, broker=MemoryBroker(), engines=engines)
    simulated, _ = await _simulated(own, SETTINGS)
    assert largest_difference(weights_of(mixed), simulated) <= 1e-5
