"""Whatever the shares, a cluster's turn is a step on the concatenated mini-batch."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from edge_coordinator.job.replay import RecordedRound, ReplayedPlans
from edge_coordinator.job.training_settings import ScheduleSettings
from edge_coordinator.simulation.simulation import Simulation
from edge_coordinator.training.schedule import Schedule
from runtime.bus.memory_bus import MemoryBroker
from runtime.datasets.samples import Samples
from runtime.errors import SettingsError
from runtime.models.load import load_network
from runtime.scenarios.files import load_scenario
from runtime.seeding import draw_batch
from runtime.wire.frames import Tensor
from tests.builders import (
    Reports,
    as_torch,
    largest_difference,
    make_job,
    run_job,
    same_bits,
    weights_of,
)
from tests.noise import shards

pytestmark = pytest.mark.numerics

SHAPE, ROUNDS, RATE = (1, 28, 28), 3, 0.05
SETTINGS: Mapping[str, object] = {
    "training.rounds": ROUNDS,
    "training.local_epochs": 1,
    "training.server_optimizer.learning_rate": RATE,
    "evaluation.every": ROUNDS,
    "broker.chunk_bytes": 2000,
}


def plans(*clusters: Mapping[str, int], micro_batches: int = 1) -> ReplayedPlans:
    """Plans of clusters whose samples are shared out like this, cut after pool1."""
    plan = {
        "cut": 3,
        "cut_layer": "pool1",
        "clusters": [
            {"devices": [*own], "batch_sizes": [*own.values()], "micro_batches": micro_batches}
            for own in clusters
        ],
    }
    rounds = [{"round": round_ + 1, "plan": plan} for round_ in range(ROUNDS)]
    return ReplayedPlans(Path("run"), [RecordedRound.model_validate(each) for each in rounds])


async def simulated(
    own: Mapping[str, Samples], given: ReplayedPlans, **settings: object
) -> tuple[dict[str, Tensor], list[tuple[int, int]]]:
    job, model = make_job(own, {**SETTINGS, **settings})
    job = replace(job, given_plans=given)
    simulation = Simulation(job, model, own, load_scenario("uniform"))
    done = await simulation.run(observers=[], progress=Reports())
    return weights_of(model), [(each.report.up_bytes, each.report.down_bytes) for each in done]


def plain_steps(
    own: Mapping[str, Samples], sizes: Mapping[str, int], *, momentum: float
) -> dict[str, Tensor]:
    """Plain SGD of the unsplit network on the concatenated mini-batches."""
    torch.set_num_threads(1)
    network = load_network("lenet", {}, seed=0).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=momentum)
    schedule = Schedule(**ScheduleSettings().model_dump(), num_rounds=ROUNDS)
    for round_ in range(1, ROUNDS + 1):
        chosen = {
            device: draw_batch(
                len(own[device]), size, seed=0, device=device, round_=round_, epoch=0
            )
            for device, size in sizes.items()
        }
        x = np.concatenate([own[device].x[rows] for device, rows in chosen.items()])
        y = np.concatenate([own[device].y[rows] for device, rows in chosen.items()])
        for group in optimizer.param_groups:
            group["lr"] = RATE * schedule.rate_factor(round_)
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(network(as_torch(x)), as_torch(y)))
        optimizer.step()
    return {name: np.array(t.numpy()) for name, t in network.state_dict().items()}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("sizes", [(16, 16, 16), (5, 36, 7), (1, 2, 45)])
async def test_a_turn_is_a_step_on_the_concatenated_batch_whatever_the_shares(
    sizes: tuple[int, ...], momentum: float
) -> None:
    own = shards((40, 60, 50), SHAPE)
    shared = dict(zip(own, sizes, strict=True))
    settings = {"training.server_optimizer.momentum": momentum}
    trained, _ = await simulated(own, plans(shared), **settings)
    assert largest_difference(trained, plain_steps(own, shared, momentum=momentum)) <= 1e-6


OWN = shards((40, 60, 50, 20), SHAPE)
FIRST, *REST = OWN
SHARED = ({FIRST: 16}, dict(zip(REST, (3, 35, 10), strict=True)))


async def real(
    given: ReplayedPlans, engine: str
) -> tuple[dict[str, Tensor], list[tuple[int, int]]]:
    job, model = make_job(OWN, SETTINGS)
    prepared, engines = (replace(job, given_plans=given), model), ("torch", engine)
    model, done = await run_job(OWN, {}, broker=MemoryBroker(), prepared=prepared, engines=engines)
    return weights_of(model), [(each.up_bytes, each.down_bytes) for each in done]


@pytest.mark.parametrize("micro_batches", [1, 3])
async def test_a_real_run_ends_in_the_weights_and_bytes_of_a_simulation(micro_batches: int) -> None:
    given = plans(*SHARED, micro_batches=micro_batches)
    (expected, simulated_bytes), (found, num_bytes) = (
        await simulated(OWN, given),
        await real(given, "torch"),
    )
    assert same_bits(found, expected)
    assert num_bytes == simulated_bytes


async def test_both_engines_take_mini_batches_of_any_size() -> None:
    given = plans(*SHARED)
    (expected, _), (found, _) = await simulated(OWN, given), await real(given, "onnxruntime")
    assert largest_difference(found, expected) <= 1e-5


async def test_clipping_is_that_of_a_devices_part_of_the_gradient() -> None:
    job, _ = make_job(shards((40, 40), SHAPE), {"training.clip.norm": 1.0})
    (cluster,) = plans({"d0": 8, "d1": 24}).plan(1, ["d0", "d1"]).clusters
    clips = job.device_clips(cluster)
    assert [clip.norm for clip in clips.values() if clip] == [0.25, 0.75]


def test_a_job_whose_samples_cannot_be_shared_out_is_refused_or_says_why() -> None:
    own = shards((40, 40), SHAPE)
    by_speed = {"plan.mode": "auto", "plan.batch_sizes": "by_speed"}
    with pytest.raises(SettingsError, match="each device takes steps of its own: take 'equal'"):
        make_job(own, {**by_speed, "training.method": "fl"})
    with pytest.raises(SettingsError, match="by hand, batch_sizes cannot be 'by_speed'"):
        make_job(own, {"plan.batch_sizes": "by_speed"})
    job, _ = make_job(shards((40, 40), (3, 32, 32)), {**by_speed, "model.name": "resnet8"})
    assert "BatchNorm2d" in job.equal_batches
