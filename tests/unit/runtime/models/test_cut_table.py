"""What a layer costs, against counts by hand."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from edge_coordinator.cli.flags import build_parser
from edge_coordinator.formatting import amount
from profiles.cuts import CutTable, device_round_bytes
from runtime.errors import SettingsError
from runtime.models.cut_table import measure_cut_table
from runtime.models.load import load_network
from runtime.models.zoo import BUILT_IN


def table_of(name: str, **options: object) -> CutTable:
    network = load_network(name, options, seed=0)
    assert network.input_shape is not None
    return measure_cut_table(network, name=name, input_shape=network.input_shape)


class _Overwriting(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x).mul_(2)


def test_a_layer_that_runs_but_cannot_train_is_named() -> None:
    network = nn.Sequential(nn.Linear(4, 4), _Overwriting(), nn.Linear(4, 2))
    with pytest.raises(SettingsError, match="layer 1 of own cannot train: one of the variables"):
        measure_cut_table(network, name="own", input_shape=(4,))


def test_lenet_costs_what_it_costs_by_hand() -> None:
    layers = {layer.name: layer for layer in table_of("lenet").layers}
    conv1, conv2, fc1 = layers["conv1"], layers["conv2"], layers["fc1"]
    assert conv1.forward_flop == 2 * (28 * 28) * 6 * (5 * 5)
    assert conv1.backward_flop == conv1.forward_flop  # No gradient for the images.
    assert conv2.forward_flop == 2 * (10 * 10) * 16 * (5 * 5 * 6)
    assert conv2.backward_flop == 2 * conv2.forward_flop
    assert conv2.state_bytes == 4 * (16 * 6 * 5 * 5 + 16)
    assert fc1.forward_flop == 2 * 400 * 120
    assert fc1.backward_flop == 2 * fc1.forward_flop + 120  # The bias sums its gradients.
    assert layers["relu1"].forward_flop == 6 * 28 * 28
    assert layers["pool1"].forward_flop == 4 * (6 * 14 * 14)
    assert layers["pool1"].activation_shape == (6, 14, 14)
    assert layers["pool1"].activation_bytes == 4 * 6 * 14 * 14
    assert layers["pool1"].kind == "MaxPool2d"


@pytest.mark.parametrize(
    ("layer", "output_sides"),
    [
        (nn.Conv2d(4, 4, 3, groups=4), 6 * 6),
        (nn.Conv2d(4, 8, 3, groups=2), 6 * 6),
        (nn.ConvTranspose2d(4, 8, 3, groups=2), 8 * 8),
    ],
)
def test_each_gradient_of_a_convolution_in_groups_costs_what_its_forward_pass_costs(
    layer: nn.Conv2d | nn.ConvTranspose2d, output_sides: int
) -> None:
    before = nn.Conv2d(4, 4, 1)
    network = nn.Sequential(OrderedDict(before=before, grouped=layer))
    cost = measure_cut_table(network, name="grouped", input_shape=(4, 8, 8)).layers[1]
    assert cost.forward_flop == 2 * output_sides * layer.weight.numel()
    assert cost.backward_flop == 2 * cost.forward_flop


@pytest.mark.parametrize("name", BUILT_IN)
def test_at_every_cut_both_sides_together_cost_the_whole(name: str) -> None:
    table = table_of(name, dropout=0.5)
    forward_flop = table.device_forward_flop + table.server_forward_flop
    backward_flop = table.device_backward_flop + table.server_backward_flop
    assert np.ptp(forward_flop) == 0
    assert np.ptp(backward_flop) == 0
    assert forward_flop[0] == sum(layer.forward_flop for layer in table.layers) > 0


def test_buffers_travel_with_the_parameters() -> None:
    layers = {layer.name: layer for layer in table_of("resnet8").layers}
    assert layers["bn1"].state_bytes == 4 * 16 * 4 + 8  # Two of each, and a count of batches.


def test_attention_is_counted_product_by_product() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    cost = measure_cut_table(nn.Sequential(layer), name="vit", input_shape=(5, 8)).layers[0]
    products_flop = 2 * 5 * (8 * 24 + 8 * 8 + 2 * 8 * 16) + 2 * (2 * 5 * 5 * 8)
    assert products_flop < cost.forward_flop < 1.4 * products_flop


def test_measuring_changes_neither_the_network_nor_the_random_generator() -> None:
    network = load_network("cnn1d", {"dropout": 0.5}, seed=0).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    generator_before = torch.random.get_rng_state()
    measure_cut_table(network, name="cnn1d", input_shape=(9, 128))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), generator_before)
    assert not network.training
    assert isinstance(network.get_submodule("drop1"), nn.Dropout)


def test_a_round_exchanges_smashed_data_each_epoch_and_the_model_once() -> None:
    table = table_of("lenet")
    round_bytes = device_round_bytes(table, batch_size=16, local_epochs=3)
    model_bytes = 4 * (6 * 25 + 6)
    assert round_bytes[3] == 2 * 3 * 16 * (4 * 6 * 14 * 14) + 2 * model_bytes
    assert round_bytes[0] == 3 * 16 * (4 * 28 * 28)
    assert round_bytes[-1] == 2 * 4 * 61_706


@pytest.mark.parametrize("flag", ["--batch-size", "--local-epochs"])
def test_the_counts_of_a_models_table_are_above_0(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["model", "lenet", f"{flag}=-3"])
    assert f"{flag}: '-3' is not a whole number above 0" in capsys.readouterr().err


def test_amounts_have_three_digits() -> None:
    assert [amount(value) for value in (0, 999, 1000, 12_340, 99_960, 2.5e9)] == [
        *("0", "999", "1.00k", "12.3k", "100k", "2.50G")
    ]
