"""Micro-batches are the same mathematics: sums in another order, and nothing else."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edge_coordinator.onnx_export import export_device_side
from edge_coordinator.simulation.simulation import Simulation
from edge_coordinator.training.algorithm import Smashed, SpoiltStepError, StepFailedError
from edge_coordinator.training.turn import Turn
from runtime.errors import SettingsError
from runtime.models.batch_layers import batch_layers
from runtime.models.dropout import seed_dropout
from runtime.models.load import network_of
from runtime.models.sequence import Network
from runtime.scenarios.files import load_scenario
from runtime.wire.frames import Tensor
from runtime.wire.micro_batches import Rows, parted
from tests.builders import Reports, largest_difference, make_job, weights_of
from tests.noise import random_samples, shards
from tests.unit.device_agent.engines.engine_comparison import MOMENTUM, draw_samples, open_executor
from tests.unit.runtime.models.brought_networks import TOKENS, Masked

pytestmark = pytest.mark.numerics

SHAPE = (1, 28, 28)
UNIT = float(np.finfo(np.float32).eps) / 2


def lengths(num_samples: int, micro_batches: int) -> list[int]:
    return [len(rows) for rows in parted(num_samples, micro_batches)]


def test_a_mini_batch_is_parted_evenly_and_no_part_is_empty() -> None:
    assert lengths(16, 4) == [4, 4, 4, 4]
    assert lengths(10, 4) == [3, 3, 2, 2]
    assert lengths(3, 8) == [1, 1, 1]
    assert parted(5, 2) == (Rows(0, 3, 5), Rows(3, 5, 5))


def largest_error(actual: Tensor, expected: Tensor) -> float:
    return float(np.abs(np.subtract(actual, expected, dtype=np.float32)).max())


def made_turn(own: Mapping[str, object], **settings: object) -> Turn:
    _, model = make_job(own, {"model.options": {"dropout": 0.3}} | settings)  # type: ignore[arg-type]
    return model.turn(cut=3, round_=1, learning_rate=0.1)


def sent(device: str, num_samples: int) -> Smashed:
    samples = random_samples(num_samples, (6, 14, 14), num_classes=10, seed=len(device))
    return Smashed(samples.x, samples.y)


def stepped(turn: Turn, own: Mapping[str, Smashed], order: list[tuple[str, Rows]]) -> list[Tensor]:
    """The devices' gradients, then the server's weights after a step in this order."""
    turn.begin({device: len(each.labels) for device, each in own.items()})
    parts = {}
    for device, rows in order:
        each, part = own[device], slice(rows.start, rows.stop)
        gradient = turn.add(device, rows, Smashed(each.data[part], each.labels[part]))
        parts[device, rows.start] = gradient
    turn.update(own)
    gradients = [np.concatenate([parts[k] for k in sorted(parts) if k[0] == d]) for d in own]
    return [*gradients, *turn.server_side.tensors()]


def test_parts_give_the_gradients_and_weights_of_the_whole_whatever_comes_first() -> None:
    own = {"a": sent("a", 16), "bb": sent("bb", 10)}
    devices = shards([16, 10], SHAPE)
    whole_turn = made_turn(devices)
    whole = whole_turn.step(own)
    expected = [*(whole.gradients[d] for d in own), *whole_turn.server_side.tensors()]
    order = [(d, rows) for d in own for rows in parted(len(own[d].labels), 4)]
    one = stepped(made_turn(devices), own, order)
    for actual, value in zip(one, expected, strict=True):
        # A sum of n rounded products in any order is within n units of the sum of magnitudes;
        # the longest here are the 26 samples' times 400 inputs of a layer, twice.
        bound = 2 * 26 * 400 * UNIT * float(np.abs(value).max())
        assert largest_error(actual, value) <= bound
    by_part = sorted(order, key=lambda each: (each[1].start, each[0]), reverse=False)
    for other in (by_part, sorted(order, key=lambda each: (each[0] == "a", each[1].start))):
        assert all(map(np.array_equal, stepped(made_turn(devices), own, other), one))


def test_a_device_that_is_lost_amid_a_step_counts_for_nothing_on_the_server() -> None:
    devices = shards([16, 10], SHAPE)
    left, lost = sent("a", 16), sent("bb", 10)
    alone, with_lost = made_turn(devices), made_turn(devices)
    alone.step({"a": left})
    with_lost.begin({"a": 16, "bb": 10})
    with_lost.add("bb", Rows(0, 5, 10), Smashed(lost.data[:5], lost.labels[:5]))
    with_lost.add("a", Rows.all(16), left)
    with_lost.update(["a"])
    for actual, value in zip(
        with_lost.server_side.tensors(), alone.server_side.tensors(), strict=True
    ):
        # The longest sum is of a convolution's gradient: 16 samples of 8 x 8 places.
        bound = 16 * 64 * UNIT * float(np.abs(value).max())
        assert largest_error(actual, value) <= bound


def test_a_micro_batch_without_a_finite_loss_is_its_devices_fault() -> None:
    turn = made_turn(shards([16, 10], SHAPE))
    turn.begin({"a": 2})
    large = np.float32(3e38) * np.sign(sent("a", 2).data)
    bad = Smashed(large, np.zeros(2, np.uint8))
    with pytest.raises(SpoiltStepError, match="a sent samples whose loss is"):
        turn.add("a", Rows.all(2), bad)


def of_three_fails(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    if len(labels) == 3:
        raise KeyError("weights")
    return functional.cross_entropy(outputs, labels)


def test_whatever_a_loss_raises_in_a_step_is_told_with_what_it_was_given() -> None:
    turn = made_turn(shards([16, 10], SHAPE), **{"training.loss": f"{__name__}:of_three_fails"})
    with pytest.raises(StepFailedError, match=r"cannot train on \(3, .*\) of a: 'weights'"):
        turn.step({"a": sent("a", 3)})


async def simulated(micro_batches: int, **settings: object) -> dict[str, Tensor]:
    own = shards((40, 12, 25), SHAPE)
    by_hand = {
        "training.micro_batches": micro_batches,
        "training.rounds": 20,
        "training.local_epochs": 1,
        "plan.clusters": 1,
        "evaluation.every": 20,
    }
    job, model = make_job(own, by_hand | settings)
    simulation = Simulation(job, model, own, load_scenario("uniform"))
    await simulation.run(observers=[], progress=Reports())
    return weights_of(model)


async def test_twenty_rounds_in_micro_batches_end_within_1e_5_of_those_in_whole_ones() -> None:
    options = {"model.options": {"dropout": 0.2}}
    whole, parts = await simulated(1, **options), await simulated(4, **options)
    assert 0 < largest_difference(whole, parts) <= 1e-5


def test_the_onnx_engine_sums_parts_to_the_whole_with_the_same_masks() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout(0.4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    seed_dropout(module)
    executor = open_executor(export_device_side(module, (1, 8, 8), batch_size=8), MOMENTUM)
    x = draw_samples((1, 8, 8), num_samples=8)
    gradient = draw_samples((2, 4, 4), num_samples=8)
    before = [each.numpy() for each in module.state_dict().values()]
    before += [np.zeros(each.shape, np.float32) for each in module.parameters()]
    results = []
    for count in (1, 3):
        executor.load(before)
        rows = parted(8, count)
        smashed = [
            executor.forward(x[each.start : each.stop], dropout_key=(3,), rows=each)
            for each in rows
        ]
        for each in rows:
            executor.backward(
                gradient[each.start : each.stop], learning_rate=0.1, is_last=each is rows[-1]
            )
        results.append([np.concatenate(smashed), *executor.tensors()])
    for whole, parts in zip(*results, strict=True):
        # The longest sum is of a weight's gradient: 8 samples of 6 x 6 places.
        bound = 2 * 8 * 36 * UNIT * float(np.abs(whole).max())
        assert largest_error(whole, parts) <= bound


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), "layer 1 (BatchNorm2d) keeps"),
        (
            nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.ReLU()),
            "layer 0 (BatchNorm2d) gives another result",
        ),
        (nn.Sequential(nn.GroupNorm(1, 1), nn.Dropout(0.5), nn.Flatten(), nn.LayerNorm(64)), ""),
    ],
)
def test_layers_that_look_at_a_whole_mini_batch_are_found(module: nn.Module, named: str) -> None:
    network = network_of(module, name="tried", input_shape=(1, 8, 8))
    assert isinstance(network, Network)
    before = {name: each.clone() for name, each in network.state_dict().items()}
    found = batch_layers(network, (1, 8, 8))
    assert next(iter(found.values()), "").startswith(named)
    assert bool(found) == bool(named)
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())


def summed(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, labels.long(), reduction="sum")


def test_mini_batches_stay_whole_where_parts_would_be_other_mathematics() -> None:
    own = shards((20, 20), (3, 32, 32))
    by_hand = {"model.name": "resnet8", "plan.cut": 3, "training.micro_batches": 4}
    job, _ = make_job(own, by_hand)
    assert "BatchNorm2d" in job.whole_batches
    assert job.micro_batches == (1,)
    own = shards((20, 20), SHAPE)
    loss = {"training.loss": f"{__name__}:summed", "training.micro_batches": "auto"}
    job, _ = make_job(own, loss | {"plan.mode": "auto"})
    assert "is no mean over samples" in job.whole_batches
    with pytest.raises(SettingsError, match="chosen by the plan"):
        make_job(own, {"training.micro_batches": "auto"})


def test_a_network_of_token_ids_and_masks_may_have_its_mini_batches_parted() -> None:
    network = network_of(Masked(), name="masked", input_shape=TOKENS)
    assert network.input_shape == (12,)
    assert batch_layers(network, network.input_shape) == {}
