"""Devices of one process measure each thing once, and between the steps of training."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from device_agent.agent.trainer import Trainer
from device_agent.emulation.engine import EmulatedEngine
from device_agent.engines.compute_timings import ComputeTimings
from device_agent.engines.measurement import (
    SharedFindings,
    Timing,
    UnwantedError,
    complete,
    take_between,
)
from device_agent.engines.open import open_engine
from device_agent.profiling.reference_network import built_in_engine
from edge_coordinator.devices.stop_secrets import StopSecrets
from profiles.emulation import DeviceClass
from tests.noise import random_samples
from tests.turn import ASSIGNMENT


@pytest.fixture
def compute() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


async def test_devices_that_ask_at_once_share_one_measurement() -> None:
    shared, num_taken = SharedFindings(), 0

    async def find() -> int:
        nonlocal num_taken
        num_taken += 1
        await asyncio.sleep(0)
        return num_taken

    found = await asyncio.gather(*(shared.once("key", find) for _ in range(5)))
    assert found == [1] * 5
    assert shared.has("key")
    assert not shared.has("another")
    assert await shared.once("another", find) == 2


@pytest.mark.torch
def test_devices_that_are_told_of_the_same_job_share_what_one_measured_of_it() -> None:
    stops = StopSecrets()  # Of each device another, which is part of what it is told.
    samples = random_samples(8, (1, 28, 28), num_classes=10, seed=5)
    keys = []
    for device in ("pi-1", "pi-2"):
        trainer = Trainer(
            device, samples, lambda job, shape: open_engine("torch", job, sample_shape=shape)
        )
        trainer.prepare(stops.with_digest(device, ASSIGNMENT))
        measurement = trainer.measurement()
        assert measurement is not None
        keys.append(measurement.key)
    assert keys[0] == keys[1]


async def test_a_device_that_fails_or_leaves_keeps_nobody_from_measuring() -> None:
    shared, begun = SharedFindings(), asyncio.Event()

    async def hang() -> int:
        begun.set()
        await asyncio.Event().wait()
        return 0

    async def fail() -> int:
        raise ValueError("its network is broken")

    async def find() -> int:
        return 3

    leaving = asyncio.create_task(shared.once("key", hang))
    await begun.wait()
    failing = asyncio.create_task(shared.once("key", fail))
    waiting = asyncio.create_task(shared.once("key", find))
    leaving.cancel()
    await asyncio.wait({leaving, failing})
    assert isinstance(failing.exception(), ValueError)
    assert await waiting == 3


async def test_what_was_found_too_long_ago_is_found_again() -> None:
    now_s = [0.0]
    shared = SharedFindings(lambda: now_s[0])

    async def find() -> float:
        return now_s[0]

    assert await shared.once("link", find, max_age_s=30) == 0
    now_s[0] = 29.0
    assert await shared.once("link", find, max_age_s=30) == 0
    now_s[0] = 31.0
    assert await shared.once("link", find, max_age_s=30) == 31
    assert await shared.once("link", find) == 31


async def test_training_goes_between_the_steps_of_a_measurement(
    compute: ThreadPoolExecutor,
) -> None:
    done: list[str] = []

    def measure() -> Timing[str]:
        for _ in range(3):
            if "step" in done:
                compute.submit(done.append, "training")
            done.append("step")
            yield 0.0
        return "found"

    assert await take_between(measure(), compute, is_wanted=lambda: True) == "found"
    assert done == ["step", "step", "training", "step", "training"]


async def test_a_measurement_stops_at_the_step_after_which_nobody_wants_it(
    compute: ThreadPoolExecutor,
) -> None:
    num_steps = 0

    def measure() -> Timing[None]:
        nonlocal num_steps
        while True:
            num_steps += 1
            yield 0.0

    with pytest.raises(UnwantedError):
        await take_between(measure(), compute, is_wanted=lambda: num_steps < 2)
    assert num_steps == 2


@pytest.mark.torch
def test_emulated_classes_make_their_own_of_one_measurement() -> None:
    inner = built_in_engine("lenet", batch_size=4)
    batch = inner.random_batch()
    measurements = [
        EmulatedEngine(inner, _class(slowdown)).measure_layers(
            batch, budget_s=0.0, clock=lambda: 0.0
        )
        for slowdown in (1.0, 5.0)
    ]
    one, five = (each for each in measurements if each is not None)
    assert one.key == five.key
    found = complete(one.take())
    as_one, as_five = _read(one.read(found)), _read(five.read(found))
    np.testing.assert_allclose(as_five.forward_s, 5 * as_one.forward_s)


def _class(slowdown: float) -> DeviceClass:
    return DeviceClass(name="any", slowdown=slowdown, up_bps=1e6, down_bps=1e6)


def _read(timings: ComputeTimings | None) -> ComputeTimings:
    assert timings is not None
    return timings
