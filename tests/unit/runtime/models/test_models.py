"""Networks by name, cut by name."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from runtime.errors import SettingsError
from runtime.models.load import (
    check_sample_shape,
    cut_index,
    input_shape_of,
    layer_shapes,
    load_network,
    network_of,
    split,
)
from runtime.models.sequence import as_network, layers_of
from runtime.models.zoo import BUILT_IN

OWN_MODELS = """
import torch
from torch import nn

class InOrder(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2)
    def forward(self, x):
        return self.last(self.drop(self.first(x)))

class Skipping(InOrder):
    def forward(self, x):
        return self.last(torch.relu(self.first(x)))

def sequence(hidden=8):
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(nn.Linear(4, hidden), relu, nn.Linear(hidden, hidden), relu)

def number():
    return 3

def without_numbers():
    return nn.Linear(4, 2, device="meta")

def compiled():
    wrapper = nn.Identity()
    wrapper._orig_mod = InOrder()  # As torch.compile has it, which takes seconds to import.
    return wrapper

def on_several():
    return nn.DataParallel(InOrder())

class Raises(nn.Module):
    def forward(self, x):
        return 1 / 0

def raising():
    return nn.Sequential(nn.Linear(4, 2), Raises())
"""


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_models_for_tests.py").write_text(OWN_MODELS)
    return tmp_path


@pytest.mark.parametrize("name", BUILT_IN)
def test_both_halves_of_a_built_in_network_give_what_the_whole_gives(name: str) -> None:
    network = load_network(name, {}, seed=3).eval()
    x = torch.randn(2, *input_shape_of(network), generator=torch.Generator().manual_seed(1))
    for cut in range(len(network) + 1):
        device_side, server_side = split(network, cut)
        assert [*layers_of(device_side), *layers_of(server_side)] == list(layers_of(network))
        assert torch.equal(server_side(device_side(x)), network(x))


def test_lenet_has_the_published_number_of_parameters() -> None:
    network = load_network("lenet", {}, seed=0)
    assert sum(parameter.numel() for parameter in network.parameters()) == 61_706


def test_options_reach_the_layers() -> None:
    options = {"num_classes": 3, "input_shape": [1, 8], "hidden": [5, 4], "dropout": 0.5}
    network = load_network("mlp", options, seed=0)
    names = ["flatten", "fc1", "relu1", "drop1", "fc2", "relu2", "drop2", "fc3"]
    assert list(layers_of(network)) == names
    assert layer_shapes(network, (1, 8))[-1] == (3,)


def test_the_seed_decides_the_parameters_and_the_global_generator_stays_as_it_was() -> None:
    before = torch.random.get_rng_state()
    first, second, third = (load_network("lenet", {}, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [network.state_dict()["fc3.weight"] for network in (first, second, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("cut", "count"),
    [("input", 0), ("none", 0), ("pool1", 3), ("fc3", 12), (0, 0), (12, 12), ("7", 7)],
)
def test_a_cut_is_a_layer_name_or_a_number_of_layers(cut: str | int, count: int) -> None:
    assert cut_index(load_network("lenet", {}, seed=0), cut) == count


@pytest.mark.parametrize(
    ("cut", "message"),
    [("pool9", r"no layer named 'pool9' in lenet; the layers are conv1, relu1, "), (13, "0 to 12")],
)
def test_an_unknown_cut_says_which_there_are(cut: str | int, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        cut_index(load_network("lenet", {}, seed=0), cut)


@pytest.mark.parametrize(
    ("reference", "options", "message"),
    [
        ("lent", {}, "the built-in models are cnn1d, lenet, mlp, resnet8"),
        ("lenet", {"widht": 2}, "no option 'widht'; it takes num_classes, input_shape, width"),
        ("lenet", {"num_classes": "ten"}, "cannot be built with num_classes='ten'"),
        ("lenet", {"num_classes": 0}, "num_classes of lenet is 0"),
        ("mlp", {"dropout": 1.0}, "dropout is 1.0"),
        ("no_such_module:network", {}, "cannot import no_such_module"),
        ("own_models_for_tests:missing", {}, "has no 'missing'"),
        ("own_models_for_tests:number", {}, "returned a int, not an nn.Module"),
        ("own_models_for_tests:sequence", {"width": 1}, "no option 'width'; it takes hidden"),
        ("own_models_for_tests:InOrder", {}, "add the option input_shape"),
        ("own_models_for_tests:without_numbers", {}, "is on the device meta, without numbers"),
        ("own_models_for_tests:Skipping", {"input_shape": [5]}, "does not run on samples of shape"),
    ],
)
@pytest.mark.usefixtures("own_models")
def test_a_network_that_cannot_be_built_says_why(
    reference: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        load_network(reference, options, seed=0)


@pytest.mark.usefixtures("own_models")
def test_what_wraps_a_module_to_run_it_faster_is_taken_off() -> None:
    for wrapped in ("compiled", "on_several"):
        network = load_network(f"own_models_for_tests:{wrapped}", {}, seed=0, sample_shape=(4,))
        assert list(layers_of(network)) == ["first", "drop", "last"]


@pytest.mark.usefixtures("own_models")
def test_whatever_a_layer_raises_is_told_with_its_name() -> None:
    network = load_network("own_models_for_tests:raising", {}, seed=0)
    with pytest.raises(SettingsError, match=r"layer 1 of model .* given, .2,.: division by zero"):
        layer_shapes(network, (4,))


@pytest.mark.usefixtures("own_models")
def test_a_module_whose_children_run_in_order_becomes_a_sequence() -> None:
    reference = "own_models_for_tests:InOrder"
    network = load_network(reference, {}, seed=0, sample_shape=(4,))
    assert list(layers_of(network)) == ["first", "drop", "last"]
    assert input_shape_of(network) == (4,)


@pytest.mark.usefixtures("own_models")
def test_a_layer_may_have_a_name_that_networks_use_themselves() -> None:
    torch.manual_seed(0)
    layers = OrderedDict(layers=nn.Linear(4, 3), name=nn.ReLU(), part=nn.Linear(3, 2))
    network = network_of(nn.Sequential(layers), name="own", input_shape=(4,))
    x = torch.rand(2, 4)
    assert torch.equal(network(x), nn.Sequential(layers)(x))
    assert set(network.state_dict()) >= {"layers.weight", "part.weight"}


def test_a_layer_that_stands_twice_stays_twice_and_overwrites_nothing() -> None:
    network = load_network("own_models_for_tests:sequence", {"hidden": 3}, seed=0)
    assert len(network) == 4
    smashed = -torch.ones(1, 3)
    network[1](smashed)
    assert smashed.tolist() == [[-1, -1, -1]]


def test_a_cut_that_would_part_a_parameter_of_two_layers_is_refused() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    tied = nn.Sequential(OrderedDict(first=first, second=second))
    with pytest.raises(SettingsError, match="layers first and second of tied share a parameter"):
        as_network(tied, name="tied", input_shape=(4,))
    whole = network_of(tied, name="tied", input_shape=(4,))
    with pytest.raises(SettingsError, match=r"after first of tied: parameter first.weight is used"):
        cut_index(whole, "first")


def test_a_sample_of_another_shape_is_refused_with_both_shapes() -> None:
    message = r"a sample of shape \(28, 28\) does not fit model lenet, which takes \(1, 28, 28\)"
    with pytest.raises(SettingsError, match=message):
        check_sample_shape(load_network("lenet", {}, seed=0), (28, 28))
    with pytest.raises(SettingsError, match=r"; add input_shape = \[28, 28\] to model\.options"):
        check_sample_shape(load_network("lenet", {}, seed=0), (28, 28))
    with pytest.raises(SettingsError, match=r"; channels come first, as by x.transpose"):
        check_sample_shape(load_network("resnet8", {}, seed=0), (32, 32, 3))


def test_the_layer_that_cannot_take_its_input_is_named() -> None:
    network = nn.Sequential(OrderedDict(fc1=nn.Linear(4, 8), fc2=nn.Linear(9, 2)))
    with pytest.raises(SettingsError, match=r"layer fc2 .* cannot take what it is given, \(8,\)"):
        layer_shapes(network, (4,))
