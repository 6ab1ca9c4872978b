"""Parameters that do not learn: no gradient, no bytes, and the same values on all devices."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from edge_coordinator.simulation.simulation import Simulation
from runtime.bus.memory_bus import MemoryBroker
from runtime.scenarios.files import load_scenario
from runtime.wire.frames import Tensor
from runtime.wire.published import RoundReport
from tests.builders import Reports, largest_difference, make_job, run_job, same_bits, weights_of
from tests.noise import shards
from tests.unit.runtime.models.adapted_network import frozen_bytes, refreeze

SHAPE, SIZES, BATCH = (1, 8, 8), (40, 25), 16
FROZEN_CUT, ADAPTED_CUT = 3, 5
"""After the ReLU nothing on the device learns; after the adapted layer its adapters do."""
STEM_BYTES, BASE_BYTES, ADAPTER_BYTES = 4 * 40, 4 * (256 * 32 + 32), 4 * (256 * 2 + 2 * 32)
STATISTICS_BYTES = 4 * (4 + 4) + 8
HEADERS = 600
"""More than headers, padding and labels of a frame of this network have."""


async def _run(
    cut: int, engines: Sequence[str] = ("torch",), *, starts_elsewhere: bool = False
) -> tuple[dict[str, Tensor], list[RoundReport]]:
    own, settings = shards(SIZES, SHAPE), _settings(cut)
    job, model = make_job(own, settings)
    if starts_elsewhere:
        refreeze(model.network)
    trained, reports = await run_job(
        own, settings, broker=MemoryBroker(), prepared=(job, model), engines=engines
    )
    assert not any(report.lost for report in reports)
    return weights_of(trained), reports


def _settings(cut: int) -> Mapping[str, object]:
    return {
        "model.name": "tests.unit.runtime.models.adapted_network:adapted",
        "plan.cut": cut,
        "plan.clusters": 1,
        "training.rounds": 3,
        "training.local_epochs": 1,
        "training.batch_size": BATCH,
        "training.server_optimizer": {"name": "adam", "learning_rate": 0.01},
    }


async def test_only_what_learns_travels_and_devices_that_have_the_rest_are_sent_none() -> None:
    _, reports = await _run(ADAPTED_CUT)
    model_bytes = 3 * ADAPTER_BYTES + STATISTICS_BYTES + 4 * 2  # With Adam's slots.
    smashed_bytes = 2 * BATCH * 32 * 4
    for report in reports:
        up_bytes = smashed_bytes + 2 * model_bytes
        assert up_bytes < report.up_bytes < up_bytes + 2 * HEADERS
        down_bytes = smashed_bytes + model_bytes  # One publish of the model for both.
        assert down_bytes < report.down_bytes < down_bytes + 3 * HEADERS


async def test_where_nothing_on_the_device_learns_no_gradient_comes_back() -> None:
    before = weights_of(make_job(shards(SIZES, SHAPE), _settings(FROZEN_CUT))[1])
    weights, reports = await _run(FROZEN_CUT)
    assert all(report.down_bytes < STATISTICS_BYTES + 3 * HEADERS for report in reports)
    changed = {name for name in weights if not np.array_equal(weights[name], before[name])}
    assert {name for name in weights if name.startswith(("0.", "4.base."))}.isdisjoint(changed)
    assert {"4.down.weight", "6.weight", "1.running_mean"} < changed


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
@pytest.mark.numerics
async def test_devices_that_have_other_frozen_values_are_sent_them_once(engine: str) -> None:
    weights, reports = await _run(ADAPTED_CUT, (engine,), starts_elsewhere=True)
    first, second, third = (report.down_bytes for report in reports)
    assert first - second > 2 * (STEM_BYTES + BASE_BYTES)
    assert abs(second - third) < HEADERS
    own, settings = shards(SIZES, SHAPE), _settings(ADAPTED_CUT)
    job, model = make_job(own, settings)
    refreeze(model.network)
    assert frozen_bytes(model.network) == STEM_BYTES + BASE_BYTES
    simulation = Simulation(job, model, own, load_scenario("mixed"))
    await simulation.run(observers=[], progress=Reports())
    if engine == "torch":
        assert same_bits(weights, weights_of(model))
    else:
        assert largest_difference(weights, weights_of(model)) < 1e-4
