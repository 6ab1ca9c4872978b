"""Whole runs over the memory bus: what may not change the result, and what may not stop a run."""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pytest

from edge_coordinator.training.averaging import average
from runtime.bus.memory_bus import MemoryBroker
from runtime.wire.frames import Frame, Tensor
from tests.builders import make_job, run_job, same_bits, weights_of
from tests.noise import shards

SHAPE = (1, 28, 28)
SIZES = (40, 12, 25, 33, 18)  # One device has less than a mini-batch.


def _settings(**changes: object) -> dict[str, object]:
    settings: dict[str, object] = {
        "plan.clusters": 2,
        "training.rounds": 3,
        "training.local_epochs": 2,
    }
    return settings | {key.replace("__", "."): value for key, value in changes.items()}


async def _weights(settings: Mapping[str, object], broker: MemoryBroker) -> dict[str, Tensor]:
    model, reports = await run_job(shards(SIZES, SHAPE), settings, broker=broker)
    assert [report.round for report in reports] == [1, 2, 3]
    assert not any(report.lost for report in reports)
    return weights_of(model)


@pytest.mark.parametrize("method", ["cpsl", "sl", "fl", "cl"])
async def test_a_run_repeats_itself_to_the_last_bit_also_when_all_arrives_twice_and_shuffled(
    method: str,
) -> None:
    settings = _settings(training__method=method)
    once = await _weights(settings, MemoryBroker())
    again = await _weights(settings, MemoryBroker())
    disturbed = MemoryBroker(duplicate=True, shuffle=np.random.default_rng(3))
    twice = await _weights(settings, disturbed)
    assert same_bits(once, again)
    assert same_bits(once, twice)


async def test_the_cut_does_not_change_what_is_learnt_with_one_device_a_cluster() -> None:
    results = [
        await _weights(_settings(training__method="sl", plan__cut=cut), MemoryBroker())
        for cut in ("conv1", "fc1")
    ]
    assert same_bits(*results)


@pytest.mark.parametrize("carry", [True, False])
async def test_every_method_learns(carry: bool) -> None:  # noqa: FBT001
    for method in ("cpsl", "sl", "fl", "cl"):
        settings = _settings(
            training__method=method,
            model__name="mlp",
            plan__cut="fc1",
            training__rounds=6,
            training__server_optimizer__learning_rate=0.05,
            training__carry_optimizer_state=carry,
        )
        _, reports = await run_job(shards(SIZES, SHAPE), settings, broker=MemoryBroker())
        first, last = reports[0].train_loss, reports[-1].train_loss
        assert first is not None
        assert last is not None
        assert last < 0.8 * first, method


async def test_devices_evaluate_where_the_coordinator_has_no_test_set() -> None:
    settings = _settings(data__test="devices", data__held_out=0.25)
    _, reports = await run_job(shards(SIZES, SHAPE), settings, broker=MemoryBroker())
    assert {report.evaluated_on for report in reports} == {"devices"}
    assert all(report.test_accuracy is not None for report in reports)


async def test_the_average_weighs_each_device_by_its_samples_and_leaves_one_alone() -> None:
    one, other = np.array([1.0, 3.0], np.float32), np.array([5.0, 1.0], np.float32)
    averaged = average({"b": [other], "a": [one]}, {"a": 3, "b": 1})
    assert averaged[0].tolist() == [2.0, 2.5]
    alone = average({"a": [one / 3]}, {"a": 7, "b": 5})
    assert alone[0].tobytes() == (one / 3).tobytes()


async def test_a_turn_of_few_devices_counts_a_cluster_for_its_rate() -> None:
    job, _ = make_job(shards(SIZES, SHAPE), _settings())
    assert job.device_rate(1, 3) == pytest.approx(3 * job.server_rate(1))
    federated, _ = make_job(shards(SIZES, SHAPE), _settings(training__method="fl"))
    assert federated.device_rate(1, 3) == federated.server_rate(1)


@contextmanager
def _cyclic_garbage() -> Iterator[list[object]]:
    """Everything that only the search for cycles could free, while this lasts."""
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    found: list[object] = []
    try:
        yield found
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


async def test_no_frame_of_a_turn_waits_for_the_search_for_cycles() -> None:
    with _cyclic_garbage() as found:
        await _weights(_settings(), MemoryBroker())
    kept = [frame.step for frame in found if isinstance(frame, Frame)]
    assert not [step for step in kept if (step.round, step.cluster) != (3, 1)]  # The last turn.
