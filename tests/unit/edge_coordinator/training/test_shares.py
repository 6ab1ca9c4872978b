"""How a cluster's samples are shared out to several devices of the server, and when not."""

from collections import OrderedDict
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edge_coordinator.job.file import load_job
from edge_coordinator.job.whole_batches import cuts_to_avoid
from edge_coordinator.training.computing.sent import SentTensors, tensors_of
from edge_coordinator.training.computing.shares import share_out
from runtime.errors import SettingsError
from runtime.models.load import load_network
from runtime.models.sequence import Network
from runtime.models.side import Side, empty_state
from runtime.wire.commands import OptimizerSpec
from tests.builders import make_job
from tests.noise import shards

SEVERAL = ["cpu", "cpu"]


@given(st.lists(st.integers(1, 64), min_size=1, max_size=12), st.integers(1, 5))
def test_every_device_is_one_ranks_and_neighbours_stay_together(
    sizes: list[int], num_ranks: int
) -> None:
    shares = share_out(sizes, num_ranks)
    assert len(shares) == num_ranks
    assert [*chain.from_iterable(shares)] == [*range(len(sizes))]
    # No rank has more than its even part and half a device at either end.
    largest = max(sum(sizes[place] for place in share) for share in shares)
    assert largest <= sum(sizes) / num_ranks + max(sizes)


def test_equal_devices_are_parted_evenly_and_what_is_left_over_has_one_more() -> None:
    assert [len(share) for share in share_out([16] * 6, 3)] == [2, 2, 2]
    assert [len(share) for share in share_out([16] * 5, 2)] == [2, 3]
    assert sum(len(share) > 0 for share in share_out([16] * 2, 4)) == 2


def test_whatever_changes_a_tensor_is_sent_and_nothing_else_is() -> None:
    network = Network(OrderedDict({"0": nn.Linear(3, 2), "1": nn.Linear(2, 1)}))
    spec = OptimizerSpec(name="sgd", momentum=0.5)
    side = Side(network, spec, carry_state=True, state=empty_state())
    sent = SentTensors()
    assert [*sent.news(tensors_of(side))[0]] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    sent.note(tensors_of(side))
    assert sent.news(tensors_of(side)) == ({}, [])
    side.trainable[0].grad = torch.ones(2, 3)
    side.step(0.1)
    assert [*sent.news(tensors_of(side))[0]] == ["0.weight", "0.weight/momentum_buffer"]
    sent.note(tensors_of(side))
    network.load_state_dict(network.state_dict())
    assert [*sent.news(tensors_of(side))[0]] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    sent.note(tensors_of(side))
    side.slots()["0.weight"].clear()
    assert sent.news(tensors_of(side)) == ({}, ["0.weight/momentum_buffer"])


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("micro_batches", 2, "shares out whole mini-batches, and micro_batches = 2 has"),
        ("phi", 0.5, "shares out samples by device, and phi = 0.5 takes means over devices"),
        ("compile", True, "runs layers that torch has not compiled: take compile = false"),
        ("method", "sl", "with method 'sl' each step has one: take 'cpsl' or 'cl'"),
        ("method", "fl", "with method 'fl' no step is the server's: take 'cpsl' or 'cl'"),
        ("server_device", ["cpu", "cuda:0"], "mixes kinds, of which the slowest would set"),
        ("server_device", ["cuda:0", "cuda:0"], "names a device twice"),
        ("server_device", ["cpu", "auto"], "it is cpu, cuda, cuda:N, mps or auto, or a list"),
        ("server_device", [], "it is cpu, cuda, cuda:N, mps or auto, or a list"),
        ("server_device", "tpu", "it is cpu, cuda, cuda:N, mps or auto, or a list"),
    ],
)
def test_what_several_devices_cannot_do_is_refused_in_a_sentence(
    key: str, value: object, said: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load_job(None, {"training.server_device": SEVERAL, f"training.{key}": value})
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_statistics_of_a_mini_batch_are_not_shared_out() -> None:
    several = {"training.server_device": SEVERAL, "model.name": "resnet8"}
    network = load_network("resnet8", {}, seed=0)
    refused, _ = cuts_to_avoid(load_job(None, several), network, shape=(3, 32, 32))
    assert sorted(refused) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(SettingsError) as said:
        make_job(shards([4, 4], (3, 32, 32)), {**several, "plan.cut": "block1"})
    assert str(said.value) == (
        "plan.cut = 4: layer block2 (ResidualBlock) keeps statistics of each mini-batch, and "
        "training.server_device = ['cpu', 'cpu'] shares mini-batches out: take one device, or a "
        "cut from layer block3 on"
    )
    make_job(shards([4, 4], (3, 32, 32)), {**several, "plan.cut": "block3"})


def test_a_device_that_is_not_here_is_refused_also_among_several() -> None:
    with pytest.raises(SettingsError, match="'cuda:62' is not to be had here: there is"):
        make_job(shards([4, 4], (1, 28, 28)), {"training.server_device": ["cuda:62", "cuda:63"]})


def test_a_list_of_one_is_that_device() -> None:
    job, model = make_job(shards([4, 4], (1, 28, 28)), {"training.server_device": ["cpu"]})
    assert job.settings.training.server_device == "cpu"
    assert model.ranks is None
    job, _ = make_job(shards([4, 4], (1, 28, 28)), {"training.server_device": SEVERAL})
    assert job.settings.training.server_device == ("cpu", "cpu")
