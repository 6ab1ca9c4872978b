"""Wherever its devices cut, a cluster's turn is a step on the concatenated mini-batch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from edge_coordinator.job.file import load_job
from edge_coordinator.job.replay import RecordedRound, ReplayedPlans
from edge_coordinator.simulation.simulation import Simulation
from edge_coordinator.training.algorithm import Smashed
from edge_coordinator.training.cuts import CutsOfTurn
from edge_coordinator.training.edge_model import WEIGHTS, EdgeModel
from edge_coordinator.training.turn import Turn
from runtime.bus.memory_bus import MemoryBroker
from runtime.errors import SettingsError
from runtime.models.load import split
from runtime.scenarios.files import load_scenario
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
from tests.noise import random_samples, shards
from tests.unit.edge_coordinator.training.test_shared_batches import (
    ROUNDS,
    SETTINGS,
    plain_steps,
)

pytestmark = pytest.mark.numerics

SHAPE = (1, 28, 28)
LAYERS = ("input", "conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "flatten")
OWN = shards((40, 60, 50), SHAPE)


def plans(
    cuts: Sequence[int] | None, *, sizes: Sequence[int] | None = None, micro_batches: int = 1
) -> ReplayedPlans:
    """Plans of one cluster of all devices, cut after pool1 where they have no cuts of their own."""
    cluster: dict[str, object] = {"devices": [*OWN], "micro_batches": micro_batches}
    if cuts is not None:
        cluster |= {"cuts": cuts, "cut_layers": [LAYERS[cut] for cut in cuts]}
    if sizes is not None:
        cluster["batch_sizes"] = sizes
    plan = {"cut": 3, "cut_layer": "pool1", "clusters": [cluster]}
    rounds = [{"round": round_ + 1, "plan": plan} for round_ in range(ROUNDS)]
    return ReplayedPlans(Path("run"), [RecordedRound.model_validate(each) for each in rounds])


Outcome = tuple[dict[str, Tensor], list[tuple[int, int]]]


async def simulated(given: ReplayedPlans, **settings: object) -> Outcome:
    job, model = make_job(OWN, {**SETTINGS, **settings})
    job = replace(job, given_plans=given)
    simulation = Simulation(job, model, OWN, load_scenario("uniform"))
    done = await simulation.run(observers=[], progress=Reports())
    return weights_of(model), [(each.report.up_bytes, each.report.down_bytes) for each in done]


async def real(given: ReplayedPlans, engines: Sequence[str], **settings: object) -> Outcome:
    job, model = make_job(OWN, {**SETTINGS, **settings})
    prepared = (replace(job, given_plans=given), model)
    model, done = await run_job(OWN, {}, broker=MemoryBroker(), prepared=prepared, engines=engines)
    return weights_of(model), [(each.up_bytes, each.down_bytes) for each in done]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    ("cuts", "sizes"),
    [
        ((3, 6, 3), (16, 16, 16)),
        ((6, 1, 4), (16, 16, 16)),
        ((0, 3, 7), (16, 16, 16)),
        ((4, 3, 6), (5, 36, 7)),
    ],
)
async def test_a_turn_is_a_step_on_the_concatenated_batch_wherever_devices_cut(
    cuts: tuple[int, ...], sizes: tuple[int, ...], momentum: float
) -> None:
    settings = {"training.server_optimizer.momentum": momentum}
    trained, _ = await simulated(plans(cuts, sizes=sizes), **settings)
    expected = plain_steps(OWN, dict(zip(OWN, sizes, strict=True)), momentum=momentum)
    assert largest_difference(trained, expected) <= 1e-6


async def test_cuts_that_are_one_end_in_the_bits_and_bytes_of_a_common_cut() -> None:
    (expected, expected_bytes), (found, num_bytes) = (
        await simulated(plans(None)),
        await simulated(plans((3, 3, 3))),
    )
    assert same_bits(found, expected)
    assert num_bytes == expected_bytes


MIXED = (4, 3, 6)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "training.local_epochs": 2,
            "codec.name": "int8",
            "training.server_optimizer.name": "adamw",
        },
        {"model.freeze": ["conv1.*"], "training.aggregation": "median"},
    ],
    ids=["sgd", "adamw, int8", "frozen, median"],
)
async def test_a_real_run_ends_in_the_weights_and_bytes_of_a_simulation(
    settings: Mapping[str, object],
) -> None:
    given = plans(MIXED)
    (expected, simulated_bytes), (found, num_bytes) = (
        await simulated(given, **settings),
        await real(given, ["torch"], **settings),
    )
    assert same_bits(found, expected)
    assert num_bytes == simulated_bytes


async def test_micro_batches_are_the_same_mathematics_at_mixed_cuts() -> None:
    parted = plans(MIXED, micro_batches=3)
    whole, _ = await simulated(plans(MIXED))
    (expected, _), (found, _) = await simulated(parted), await real(parted, ["torch"])
    assert same_bits(found, expected)
    assert largest_difference(found, whole) <= 1e-6


async def test_each_device_without_torch_is_given_the_graphs_of_its_own_cut() -> None:
    given = plans(MIXED)
    (expected, _), (found, _) = await simulated(given), await real(given, ["onnxruntime"])
    assert largest_difference(found, expected) <= 1e-5


async def test_devices_that_hold_samples_out_evaluate_each_at_its_cut() -> None:
    settings = {"data.test": "devices", "data.held_out": 0.2}
    (expected, _), (found, _) = (
        await simulated(plans(MIXED), **settings),
        await real(plans(MIXED), ["torch"], **settings),
    )
    assert same_bits(found, expected)


CUTS = {"d0": 3, "d1": 6, "d2": 3}


def made(**settings: object) -> tuple[EdgeModel, dict[str, Smashed]]:
    """A model, and what three devices send of which one has conv2 itself."""
    job, model = make_job(OWN, settings)
    samples = {
        device: random_samples(8, job.smashed_shape(cut), num_classes=10, seed=cut)
        for device, cut in CUTS.items()
    }
    return model, {device: Smashed(own.x, own.y) for device, own in samples.items()}


def turn_of(model: EdgeModel) -> Turn:
    cuts = CutsOfTurn(CUTS, learning_rate=0.3, rate_by_size=True)
    return model.turn(cut=cuts, round_=1, learning_rate=0.1)


def conv2_of(model: EdgeModel) -> NDArray[np.float32]:
    return weights_of(model)["conv2.weight"].astype(np.float32, copy=False)


def test_a_lost_device_leaves_the_others_step_as_it_is_for_them() -> None:
    model, smashed = made()
    turn, before = turn_of(model), conv2_of(model)
    there = {device: smashed[device] for device in ("d0", "d1")}
    gradients = turn.step(there).gradients
    moved = before - conv2_of(model)
    # Of d0's samples alone, of the mean over both, by the default rate of two devices.
    other, _ = made()
    layers = split(other.network, 3)[1]
    inputs = as_torch(there["d0"].data).requires_grad_()
    loss = functional.cross_entropy(layers(inputs), as_torch(there["d0"].labels)) / 2
    torch.autograd.backward(loss)
    gradient = layers.get_parameter("conv2.weight").grad
    assert gradient is not None
    assert np.allclose(moved, 0.2 * gradient.numpy(), atol=1e-7)
    assert inputs.grad is not None
    assert np.allclose(gradients["d0"], inputs.grad.numpy(), atol=1e-7)


def test_an_undone_turn_leaves_no_trace_in_layers_that_the_server_trained_for_devices() -> None:
    settings = {"training.server_optimizer.momentum": 0.9}
    (model, smashed), (fresh, _) = made(**settings), made(**settings)
    before = model.snapshot()
    turn_of(model).step(smashed)
    assert not same_bits(weights_of(model), weights_of(fresh))
    model.restore(before)
    for each in (model, fresh):
        turn_of(each).step(smashed)
    assert same_bits(
        *({name: t.numpy() for name, t in m.snapshot().items()} for m in (model, fresh))
    )


def test_in_every_aggregation_the_servers_copy_stands_for_each_device_that_has_none() -> None:
    model, smashed = made(**{"training.aggregation": "median"})
    turn = turn_of(model)
    parts = model.device_parts(CUTS)
    models = {device: parts.of(device, turn.device_side()) for device in CUTS}
    turn.step(smashed)
    trained = conv2_of(model)
    models["d1"] = [tensor + 1 for tensor in models["d1"]]
    turn.aggregate(models, dict.fromkeys(CUTS, 1))
    assert np.array_equal(conv2_of(model), trained)  # Two of three.


def test_state_that_does_not_travel_begins_anew_on_the_server_too() -> None:
    settings = {"training.server_optimizer.momentum": 0.9, "training.carry_optimizer_state": False}
    model, smashed = made(**settings)
    whole = {name: tensor for name, tensor in model.snapshot().items() if "state/" not in name}
    moved = list[NDArray[np.float32]]()
    for _ in range(2):
        model.network.load_state_dict(
            {name.removeprefix(WEIGHTS): tensor for name, tensor in whole.items()}
        )
        turn_of(model).step(smashed)
        moved.append(conv2_of(model))
    assert np.array_equal(moved[0], moved[1])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"plan.cuts": {"d9": "pool1"}}, "plan.cuts.d9 is of no device of this run"),
        ({"plan.cuts": {"d1": "conv9"}}, "plan.cuts.d1: no layer named 'conv9'"),
        (
            {"plan.cuts": {"d1": "conv2"}, "plan.mode": "auto"},
            "all others cut at plan.cut, which is 'auto'",
        ),
        ({"plan.cuts": "by_device"}, "by hand, cuts cannot be 'by_device'"),
        (
            {"plan.cuts": "by_device", "plan.mode": "auto", "plan.cut": "pool1"},
            "cuts cannot be 'by_device' where plan.cut is given, as 'pool1'",
        ),
        (
            {"plan.cuts": {"d1": "conv2"}, "training.method": "fl"},
            "with training.method 'fl' all cut after the last layer",
        ),
        (
            {"plan.cuts": {"d1": "conv2"}, "training.phi": 0.5},
            "training.phi = 0.5 aggregates over smashed data of one layer",
        ),
    ],
)
def test_cuts_that_cannot_be_are_refused(settings: Mapping[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        make_job(OWN, settings)[0].check_devices([*OWN])


@pytest.mark.parametrize("key", ["byte_budgets", "energy_budgets", "power"])
def test_a_key_of_a_device_that_there_will_not_be_is_refused(key: str) -> None:
    own: object = "laptop" if key == "power" else 1000
    job = make_job(OWN, {f"plan.{key}": {"d1": own, "*": own}})[0]
    job.check_named([*OWN])
    with pytest.raises(
        SettingsError, match=rf"plan.{key}.d1 is of no device .* they are a, b, and \*"
    ):
        job.check_named(["a", "b"])


def test_the_job_of_a_run_with_cuts_of_its_own_is_replayed(tmp_path: Path) -> None:
    written = tmp_path / "job.toml"
    written.write_text('[plan]\nmode = "by_hand"\ncut = "pool1"\ncuts = {d1 = "conv2"}\n')
    assert load_job(written, {}).plan.cuts == {"d1": "conv2"}
    assert load_job(written, {"plan.mode": "replay:run"}).plan.cuts == {}


async def test_a_job_by_hand_says_who_cuts_elsewhere() -> None:
    settings = {**SETTINGS, "plan.cuts": {"d1": "conv2"}, "plan.clusters": 1}
    job, model = make_job(OWN, settings)
    simulation = Simulation(job, model, OWN, load_scenario("uniform"))
    (done, *_) = await simulation.run(observers=[], progress=Reports())
    assert done.plan.cuts == {"d0": 3, "d1": 4, "d2": 3}
    assert "of its devices cut 1 after conv2" in done.plan.reason
    found, _ = await run_job(OWN, settings, broker=MemoryBroker())
    assert same_bits(weights_of(found), weights_of(model))
