"""Runs whose tensors travel encoded: the same bits as simulated, the bytes that were promised."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from edge_coordinator.simulation.simulation import Simulation
from runtime.bus.memory_bus import MemoryBroker
from runtime.errors import SettingsError, root_cause
from runtime.scenarios.files import load_scenario
from runtime.wire.frames import CHUNK_HEADER
from tests.builders import Reports, largest_difference, make_job, run_job, same_bits, weights_of
from tests.noise import shards

SHAPE = (1, 28, 28)
SIZES = (40, 12, 25)  # One device has less than a mini-batch.
CHUNK = 2000  # As the test's agents have it.


def _settings(**changes: object) -> dict[str, object]:
    settings: dict[str, object] = {
        "training.rounds": 2,
        "training.local_epochs": 2,
        "plan.clusters": 2,
        "broker.chunk_bytes": CHUNK,
    }
    return settings | {key.replace("__", "."): value for key, value in changes.items()}


@pytest.mark.parametrize(
    "settings",
    [
        {"codec__name": "int8", "model__options": {"dropout": 0.2}},
        {"codec__name": "int4+zlib"},
        {"codec__name": "randtopk:0.2", "codec__gradient": "bf16"},
        {"codec__name": "int8", "training__method": "fl"},
        {"codec__name": "fp16+zlib", "training__method": "cl"},
        {"codec__name": "int8", "training__server_optimizer.name": "adamw"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
async def test_a_simulation_with_codecs_ends_in_the_weights_and_bytes_of_the_real_run(
    settings: Mapping[str, object],
) -> None:
    own, asked = shards(SIZES, SHAPE), _settings(**settings)
    real, reports = await run_job(own, asked, broker=MemoryBroker())
    job, model = make_job(own, asked)
    simulation = Simulation(job, model, own, load_scenario("mixed"))
    rounds = await simulation.run(observers=[], progress=Reports())
    assert same_bits(weights_of(real), weights_of(model))
    for told, done in zip(reports, rounds, strict=True):
        assert (told.up_bytes, told.down_bytes) == (done.report.up_bytes, done.report.down_bytes)


def _travels(num_bytes: int) -> int:
    """Bytes of a frame's chunks, whose body has so many."""
    return num_bytes + -(-num_bytes // CHUNK) * CHUNK_HEADER.size


async def test_a_round_with_int8_takes_these_bytes() -> None:
    own = shards((40, 40), SHAPE)
    asked = _settings(codec__name="int8", training__rounds=1, plan__clusters=1)
    _, (report,) = await run_job(own, asked, broker=MemoryBroker())
    # Headers of a body: 2 bytes, and 2 + 4 for each axis of each tensor, padded to 8.
    smashed = 32 + 24 + 24 + 16 * 6 * 14 * 14 + 16  # least, distance; levels; labels
    gradient = 24 + 24 + 24 + 16 * 6 * 14 * 14
    # conv1 has 6 x 25 weights and 6 biases, and as many numbers of momentum: 25 a channel are too
    # few for a scale each, so there is one.
    one = 8 + 8 + 152 + 24
    model = 56 + 2 * one
    assert report.up_bytes == 2 * (2 * _travels(smashed) + _travels(model))
    assert report.down_bytes == 2 * 2 * _travels(gradient) + _travels(model)


async def test_devices_without_torch_take_part_in_a_coded_run() -> None:
    own, asked = shards(SIZES, SHAPE), _settings(codec__name="int8", training__rounds=1)
    mixed, (report,) = await run_job(
        own, asked, broker=MemoryBroker(), engines=("torch", "onnxruntime")
    )
    job, on_torch = make_job(own, asked)
    simulation = Simulation(job, on_torch, own, load_scenario("mixed"))
    [done] = await simulation.run(observers=[], progress=Reports())
    assert not report.lost
    assert report.up_bytes == done.report.up_bytes
    # A value that the engines round apart may go to another level, which moves it by one.
    assert largest_difference(weights_of(mixed), weights_of(on_torch)) < 0.01


async def test_a_device_that_lacks_a_codec_says_so() -> None:
    own = shards((20,), SHAPE)
    job, model = make_job(own, _settings(codec__name="int8", plan__clusters=1))
    later = job.assignment.model_copy(update={"codecs": ("int8", "int3")})
    with pytest.raises(BaseExceptionGroup) as caught:
        await run_job(
            own, {}, broker=MemoryBroker(), prepared=(replace(job, assignment=later), model)
        )
    error = root_cause(caught.value)
    assert isinstance(error, SettingsError)
    assert "no codec is named 'int3'" in str(error)
