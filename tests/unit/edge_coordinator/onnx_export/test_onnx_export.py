"""The exported device side does what torch does, or is refused by name."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

from edge_coordinator.onnx_export import export_device_side
from runtime.errors import SettingsError
from runtime.models.dropout import seed_dropout
from runtime.models.load import input_shape_of, load_network, network_of, split
from runtime.models.sequence import Network
from runtime.wire.device_graphs import DeviceGraphs
from tests.unit.device_agent.engines.engine_comparison import assert_same_step, draw_samples
from tests.unit.runtime.models.example_networks import (
    EXAMPLES,
    FirstOutput,
    InvertMatrices,
    ScaleByNoise,
)

BUILT_IN: dict[str, dict[str, object]] = {
    "lenet": {"dropout": 0.25},
    "mlp": {"dropout": 0.25},
    "cnn1d": {"dropout": 0.25},
    "resnet8": {"width": 8},
}
SOME_CUTS = [("lenet", 3), ("lenet", 14), ("mlp", 4), ("cnn1d", 4), ("resnet8", 4)]
BATCH_SIZE = 8


def device_side_of(model: str, cut: int) -> Network:
    network = load_network(model, BUILT_IN[model], seed=1)
    seed_dropout(network)
    return split(network, cut)[0]


@functools.cache
def graphs_of(model: str, cut: int) -> DeviceGraphs:
    module = device_side_of(model, cut)
    return export_device_side(module, input_shape_of(module), batch_size=BATCH_SIZE)


def all_cuts() -> list[tuple[str, int]]:
    sizes = {model: len(load_network(model, BUILT_IN[model], seed=1)) for model in BUILT_IN}
    return [(model, cut) for model, size in sizes.items() for cut in range(1, size + 1)]


def check_built_in(model: str, cut: int) -> None:
    module = device_side_of(model, cut)
    samples = draw_samples(input_shape_of(module), num_samples=BATCH_SIZE)
    assert_same_step(module, graphs_of(model, cut), samples)


@pytest.mark.parametrize(("model", "cut"), SOME_CUTS)
def test_a_step_is_that_of_torch(model: str, cut: int) -> None:
    check_built_in(model, cut)


@pytest.mark.every_cut
@pytest.mark.parametrize(("model", "cut"), all_cuts())
def test_a_step_is_that_of_torch_at_every_cut(model: str, cut: int) -> None:
    check_built_in(model, cut)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_step_of_a_network_people_bring_is_that_of_torch(name: str) -> None:
    build, shape = EXAMPLES[name]
    torch.manual_seed(0)
    module = build()
    graphs = export_device_side(module, shape, batch_size=BATCH_SIZE)
    assert_same_step(module, graphs, draw_samples(shape, num_samples=BATCH_SIZE))


@pytest.mark.every_cut
def test_a_recurrent_layer_beside_an_operator_that_only_torch_can_write_is_that_of_torch() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        FirstOutput(nn.GRU(5, 6, batch_first=True)), nn.AvgPool1d(2, ceil_mode=True)
    )
    graphs = export_device_side(module, (5, 5), batch_size=BATCH_SIZE)
    assert_same_step(module, graphs, draw_samples((5, 5), num_samples=3))


def test_an_embedding_takes_integers() -> None:
    module = nn.Sequential(nn.Embedding(20, 6), nn.Flatten(), nn.Linear(30, 3))
    graphs = export_device_side(module, (5,), batch_size=4, sample_dtype=torch.int64)
    samples = np.random.default_rng(0).integers(0, 20, (4, 5))
    assert_same_step(module, graphs, samples)


def test_graphs_take_batches_of_any_size() -> None:
    graphs = graphs_of("lenet", 3)
    assert graphs.manifest.batch_size is None
    module = device_side_of("lenet", 3)
    assert_same_step(module, graphs, draw_samples((1, 28, 28), num_samples=3))


def test_an_export_repeated_is_the_same_to_the_byte() -> None:
    again = graphs_of.__wrapped__("cnn1d", 4)
    assert again.payloads == graphs_of("cnn1d", 4).payloads
    assert again.digest == graphs_of("cnn1d", 4).digest


def test_weights_are_in_no_graph() -> None:
    largest = max(len(payload) for payload in graphs_of("lenet", 14).payloads.values())
    assert largest < 50_000 < sum(spec.num_bytes for spec in graphs_of("lenet", 14).manifest.state)


def test_a_parameter_that_is_not_trained_has_no_gradient() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    module[0].requires_grad_(False)  # noqa: FBT003 (torch's signature)
    manifest = export_device_side(module, (4,), batch_size=4).manifest
    assert [spec.trained for spec in manifest.state] == [False, False, True, True]
    assert manifest.backward is not None
    assert len(manifest.backward.outputs) == 2


def test_a_side_without_parameters_has_no_backward() -> None:
    assert (
        export_device_side(nn.Sequential(nn.Flatten()), (2, 2), batch_size=4).manifest.backward
        is None
    )


@pytest.mark.parametrize(
    ("layer", "operator"), [(ScaleByNoise(), "aten.rand"), (InvertMatrices(), "aten.linalg_inv")]
)
def test_what_cannot_be_exported_is_refused_by_name(layer: nn.Module, operator: str) -> None:
    inner = nn.Sequential()
    inner.add_module("odd", layer)
    module = nn.Sequential()
    module.add_module("first", nn.Linear(4, 4))
    module.add_module("block", inner)
    with pytest.raises(SettingsError) as refusal:
        export_device_side(module, (4,), batch_size=4)
    text = str(refusal.value)
    assert "layer block.odd" in text
    assert operator in text
    assert "; cut after first, or use --engine torch on the devices" in text


def test_a_refusal_leaves_the_network_as_it_was_and_looks_beyond_dropout() -> None:
    module = seed_dropout(nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), InvertMatrices()))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(SettingsError, match=r"cannot export layer 2: .*linalg_inv"):
        export_device_side(module, (4,), batch_size=4)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert module.training


class Picky(nn.Module):
    """Takes no batch of equal samples, and inverts none as a graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x == x[0]).all()):
            raise ValueError("all samples are one")
        return x.cumprod(1)


class AroundPicky(nn.Module):
    """Skips a layer, and so is recorded as a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.picky, self.head = Picky(), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(x + self.picky(x))
        return outputs


def test_a_layer_that_does_not_take_what_an_export_tries_is_refused_in_a_sentence() -> None:
    network = seed_dropout(network_of(AroundPicky(), name="around", input_shape=(4,)))
    with pytest.raises(SettingsError, match=r"cannot export .*use --engine torch on the devices"):
        export_device_side(network, (4,), batch_size=4)


def test_one_tensor_under_two_names_is_refused() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    with pytest.raises(SettingsError, match=r"0\.weight and 1\.weight are one tensor"):
        export_device_side(module, (4,), batch_size=4)


class LeavesOutPaths(nn.Module):
    """Stochastic depth around a weight-normed layer, then a running sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.path = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        path = self.path(x).tanh()
        if self.training:
            path = path * x.new_empty((x.shape[0], 1)).bernoulli_(0.5).div_(0.5)
        return torch.cumsum(x + path, 1)


def test_paths_left_out_at_random_weight_norms_and_running_sums_are_those_of_torch() -> None:
    torch.manual_seed(0)
    network = network_of(LeavesOutPaths(), name="paths", input_shape=(4,))
    graphs = export_device_side(network, (4,), batch_size=BATCH_SIZE)
    assert [mask.shape for mask in graphs.manifest.masks] == [(1,)]
    assert_same_step(network, graphs, draw_samples((4,), num_samples=3))
