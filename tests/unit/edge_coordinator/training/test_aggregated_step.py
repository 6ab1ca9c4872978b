"""What aggregated gradients are, sample by sample, and where they are the plain ones."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from edge_coordinator.job.file import load_job
from edge_coordinator.job.whole_batches import not_averaged
from edge_coordinator.training.aggregated_step import AggregatedStep
from edge_coordinator.training.algorithm import ServerStep, Smashed, joined
from edge_coordinator.training.edge_model import EdgeModel
from edge_coordinator.training.turn import Turn
from runtime.models.load import network_of
from runtime.wire.frames import Tensor
from runtime.wire.micro_batches import FirstSamples, Rows, num_aggregated, parted
from tests.builders import make_job
from tests.noise import random_samples, shards
from tests.unit.runtime.models.brought_networks import TOKENS, Masked

pytestmark = pytest.mark.numerics

CUT, BATCH, RATE = 3, 8, 0.1
AGGREGATING = load_job(None, {"training.phi": 0.5})
UNIT = float(np.finfo(np.float32).eps) / 2
LONGEST = 2 * 3 * BATCH * 400
"""Products in a sum, of all samples: in any order it is off by a unit for each, of its size."""


def model_of(**settings: object) -> EdgeModel:
    own = shards([BATCH] * 3, (1, 28, 28))
    given: Mapping[str, object] = {
        "model.options": {"dropout": 0.0},
        "training.server_optimizer.momentum": 0.0,
    }
    return make_job(own, {**given, **settings})[1]


def turn_of(aggregated: int, **settings: object) -> Turn:
    model = model_of(**settings)
    return model.turn(cut=CUT, round_=1, learning_rate=RATE, aggregated=aggregated)


def sent(seed: int, num_samples: int = BATCH) -> Smashed:
    samples = random_samples(num_samples, (6, 14, 14), num_classes=10, seed=seed)
    return Smashed(samples.x, samples.y)


def is_close(actual: Tensor, expected: Tensor) -> bool:
    error = np.abs(np.subtract(actual, expected, dtype=np.float32)).max(initial=0.0)
    return bool(error <= LONGEST * UNIT * np.abs(expected).max(initial=0.0))


def whole(step: ServerStep, device: str) -> Tensor:
    """All of one device's gradient."""
    first = () if step.aggregated is None else (step.aggregated,)
    return np.concatenate([*first, step.gradients[device]])


@pytest.mark.parametrize(
    ("phi", "sizes", "expected"),
    [
        (0.0, (16, 16), 0),
        (0.1, (10, 10), 1),  # In binary, 0.1 is a little more than a tenth.
        (0.5, (16, 9, 16), 5),
        (1.0, (16, 3), 3),
        (1.0, (16,), 0),
    ],
)
def test_the_first_samples_of_the_smallest_mini_batch_are_aggregated(
    phi: float, sizes: tuple[int, ...], expected: int
) -> None:
    assert num_aggregated(phi, sizes) == expected


@pytest.mark.parametrize("aggregated", [1, 5, BATCH])
def test_devices_with_the_same_samples_are_given_their_plain_gradients(aggregated: int) -> None:
    own = dict.fromkeys(("a", "b", "c"), sent(1))
    plain, turn = turn_of(0), turn_of(aggregated)
    expected, actual = plain.step(own), turn.step(own)
    assert actual.loss == pytest.approx(expected.loss, rel=1e-6)
    for device in own:
        assert is_close(whole(actual, device), expected.gradients[device])
    for one, other in zip(turn.server_side.tensors(), plain.server_side.tensors(), strict=True):
        assert is_close(one, other)


def test_whoever_is_left_alone_of_a_cluster_is_given_its_plain_gradient_bit_for_bit() -> None:
    own, plain, turn = {"a": sent(1)}, turn_of(0), turn_of(5)
    expected, actual = plain.step(own), turn.step(own)
    assert whole(actual, "a").tobytes() == expected.gradients["a"].tobytes()
    for one, other in zip(turn.server_side.tensors(), plain.server_side.tensors(), strict=True):
        assert one.tobytes() == other.tobytes()


def test_slopes_of_all_go_back_once_through_the_layers_at_the_mean_of_their_samples() -> None:
    """By the definition, one sample at a time, and each of its parts by autograd."""
    count, sizes = 3, {"a": BATCH, "b": BATCH - 2, "c": 3}
    own = {device: sent(seed, size) for seed, (device, size) in enumerate(sizes.items())}
    turn, subject = turn_of(count), turn_of(0).server_side
    num_samples, layers = sum(sizes.values()), subject.layers.train()
    before = [np.copy(each) for each in turn.server_side.tensors()]

    def slope(device: str, row: int) -> torch.Tensor:
        data = torch.from_numpy(own[device].data[row : row + 1])
        outputs = layers(data).detach().requires_grad_()
        label = torch.from_numpy(own[device].labels[row : row + 1])
        loss = torch.nn.functional.cross_entropy(outputs, label) / num_samples
        slopes: torch.Tensor = torch.autograd.grad(loss, outputs)[0]
        return slopes

    def back(at: NDArray[np.float32], slopes: torch.Tensor) -> NDArray[np.float32]:
        data = torch.from_numpy(at[np.newaxis]).requires_grad_()
        layers(data).backward(slopes)
        assert data.grad is not None
        found: NDArray[np.float32] = data.grad.numpy()[0]
        return found

    expected = {device: np.empty_like(each.data[count:]) for device, each in own.items()}
    of_all = []
    for row in range(count):
        mean = np.stack([each.data[row] for each in own.values()]).astype(np.float32).mean(axis=0)
        slopes = torch.stack([slope(device, row) for device in own]).sum(0)
        of_all.append(back(mean, slopes) / np.float32(len(own)))
    for device, each in own.items():
        for row in range(count, len(each.data)):
            expected[device][row - count] = back(
                each.data[row].astype(np.float32), slope(device, row)
            )
    step = turn.step(own)
    assert step.aggregated is not None
    assert is_close(step.aggregated, np.stack(of_all))
    assert all(is_close(step.gradients[d], expected[d]) for d in own)
    gradients = [each.grad for each in subject.trainable]
    for now, then, gradient in zip(turn.server_side.tensors(), before, gradients, strict=True):
        assert gradient is not None
        assert is_close(np.subtract(now, then, dtype=np.float32), -RATE * gradient.numpy())


@pytest.mark.parametrize(("parts", "count"), [(2, 3), (4, 4), (4, BATCH)])
def test_in_micro_batches_gradients_and_weights_are_those_of_whole_ones_whatever_comes_first(
    parts: int, count: int
) -> None:
    own = {"a": sent(1), "b": sent(2, BATCH + 3), "c": sent(3)}
    dropout = {"model.options": {"dropout": 0.3}}
    whole_turn = turn_of(count, **dropout)
    expected, first = (
        whole_turn.step(own),
        FirstSamples.of(count, micro_batches=parts, batch_size=BATCH),
    )
    rows = {d: parted(len(each.labels), parts, first) for d, each in own.items()}
    found = []
    for order in (1, -1):
        turn, returned = turn_of(count, **dropout), dict[tuple[str, int], Tensor]()
        turn.begin({d: len(each.labels) for d, each in own.items()})

        def part_of(device: str, index: int) -> tuple[Rows, Smashed]:
            rows_of, each = rows[device][index], own[device]
            part = slice(rows_of.start, rows_of.stop)
            return rows_of, Smashed(each.data[part], each.labels[part])

        for index in range(first.micro_batches)[::order]:
            gradient = turn.add_together({d: part_of(d, index) for d in own})
            assert gradient is not None
            returned |= {(d, index): gradient for d in own}
        for device in sorted(own)[::order]:
            for index in range(first.micro_batches, len(rows[device])):
                gradient = turn.add(device, *part_of(device, index))
                assert gradient is not None
                returned[device, index] = gradient
        loss = turn.update(own)
        assert loss == pytest.approx(expected.loss, rel=1e-6)
        for device in own:
            parts_of = [returned[device, index] for index in range(len(rows[device]))]
            assert is_close(np.concatenate(parts_of), whole(expected, device))
        for one, other in zip(
            turn.server_side.tensors(), whole_turn.server_side.tensors(), strict=True
        ):
            assert is_close(one, other)
        found.append(turn.server_side.tensors())
    # Micro-batches that are aggregated are taken in their order, and there may be one alone.
    if first.micro_batches == 1:
        assert all(a.tobytes() == b.tobytes() for a, b in zip(*found, strict=True))


def test_what_is_aggregated_counts_for_all_that_gave_it_also_if_one_is_lost_after() -> None:
    count, own = 3, {"a": sent(1), "b": sent(2)}
    first = FirstSamples.of(count, micro_batches=2, batch_size=BATCH)

    def moved(*devices: str, joint: bool) -> list[NDArray[np.float32]]:
        """By how much the server's weights move; `devices` send their rest."""
        turn = turn_of(count)
        before = [np.copy(each) for each in turn.server_side.tensors()]
        turn.begin(dict.fromkeys(own, BATCH))
        rows, rest = parted(BATCH, 2, first)
        parts = {d: Smashed(each.data[:count], each.labels[:count]) for d, each in own.items()}
        if joint:
            turn.add_together({device: (rows, each) for device, each in parts.items()})
        for device in devices:
            each = own[device]
            turn.add(device, rest, Smashed(each.data[count:], each.labels[count:]))
        turn.update(devices)
        pairs = zip(turn.server_side.tensors(), before, strict=True)
        return [np.subtract(now, then, dtype=np.float32) for now, then in pairs]

    of_all, of_rest = 2 * count, BATCH - count
    together, alone = moved(joint=True), moved("a", joint=False)
    for lost, one, other in zip(moved("a", joint=True), together, alone, strict=True):
        mean = (of_all * one + of_rest * other) / (of_all + of_rest)
        assert np.abs(lost - mean).max() <= 1e-5 * np.abs(mean).max()


def test_samples_that_are_aggregated_are_the_same_micro_batches_on_all_devices() -> None:
    half = FirstSamples.of(5, micro_batches=4, batch_size=10)
    assert half == FirstSamples(5, 2)
    assert [len(rows) for rows in parted(10, 4, half)] == [3, 2, 3, 2]
    assert [len(rows) for rows in parted(6, 4, half)] == [3, 2, 1]
    assert [len(rows) for rows in parted(5, 4, half)] == [3, 2]
    assert [len(rows) for rows in parted(16, 2, FirstSamples(4, 1))] == [4, 12]
    assert [len(rows) for rows in parted(3, 4, half)] == [2, 1]  # It was told of too many.


def test_outputs_that_are_not_one_a_sample_are_refused_in_a_sentence() -> None:
    own = {"a": sent(1), "b": sent(2)}
    step = AggregatedStep(
        own, 2, forward=lambda inputs, _: inputs.flatten(), loss=torch.nn.functional.mse_loss
    )
    with pytest.raises(ValueError, match=r"not one for each sample, as training\.phi needs"):
        step.loss(*map(torch.from_numpy, joined(own)))


def test_no_cut_has_a_layer_above_it_that_looks_at_a_whole_mini_batch() -> None:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    network = network_of(layers, name="normed", input_shape=(1, 28, 28))
    refused = not_averaged(AGGREGATING, network, shape=(1, 28, 28))
    assert list(refused) == [1, 2]
    assert refused[2] == (
        "training.phi = 0.5 averages samples over devices, and layer 2 (BatchNorm1d) keeps "
        "statistics of each mini-batch"
    )


def test_no_cut_has_masks_cross_it_which_have_no_mean() -> None:
    network = network_of(Masked(), name="masked", input_shape=TOKENS)
    refused = not_averaged(AGGREGATING, network, shape=(12,))
    assert refused
    assert all("what crosses it is" in why for why in refused.values())
    assert len(network) not in refused
    assert not_averaged(load_job(None, {}), network, shape=(12,)) == {}
