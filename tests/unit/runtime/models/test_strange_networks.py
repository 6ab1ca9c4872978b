"""Kinds of networks that strangers bring: taken as they are, or refused in a sentence."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from runtime.errors import SettingsError
from runtime.models.dropout import set_dropout_keys
from runtime.models.graph.rows import rows_of
from runtime.models.load import cut_index, layer_shapes, load_network, network_of, split
from runtime.models.sequence import Network, layers_of
from tests.unit.runtime.models.strange_networks import (
    Binary,
    ByNumpy,
    Dropping,
    Lazy,
    Routed,
    Sometimes,
    Sparse,
    Tabular,
)


def _gradients(module: nn.Module, outputs: Tensor) -> dict[str, Tensor]:
    torch.autograd.backward(outputs.pow(2).mean())
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def _assert_learns_alike(network: Network, module: nn.Module, row: Tensor, outputs: Tensor) -> None:
    """A step through the network at each cut has the gradients of the module's own, to the bit."""
    expected = _gradients(module, outputs)
    assert expected
    for cut in range(len(layers_of(network)) + 1):
        own = copy.deepcopy(network).train()
        device_side, server_side = split(own, cut)
        found = _gradients(own, server_side(device_side(row)))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected), cut


@pytest.mark.parametrize("kind", [Binary, Routed])
def test_what_the_tracer_does_not_see_by_itself_is_recorded(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module, x = kind(), torch.randn(4, 8)
    network = network_of(copy.deepcopy(module), name="own", input_shape=(8,))
    _assert_learns_alike(network, module, x, module(x))
    assert torch.autograd.Function.apply.__func__.__qualname__ == "Function.apply"  # type: ignore[attr-defined]
    assert "built-in" in repr(torch.zeros)


def test_a_function_with_a_backward_of_its_own_is_a_place_to_cut() -> None:
    network = network_of(Binary(), name="own", input_shape=(8,))
    assert list(layers_of(network)) == ["first", "Sign", "last"]
    assert cut_index(network, "Sign") == 2


def test_layers_in_order_under_a_condition_on_values_are_no_chain() -> None:
    expected = r"asks for the value .*\(`if x.mean\(\) > 1e9:`, line \d+ of strange_networks.py\); "
    with pytest.raises(SettingsError, match=expected) as refused:
        network_of(Sometimes(), name="own", input_shape=(8,))
    assert "put that part of Sometimes in a module of its own" in str(refused.value)


def test_lazy_weights_are_drawn_by_the_seed_wherever_the_layers_are() -> None:
    reference = "tests.unit.runtime.models.strange_networks:Lazy"
    options = {"input_shape": [3, 8, 8]}
    networks = [load_network(reference, options, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (network.state_dict() for network in networks)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["last.weight"], other["last.weight"])
    assert first["last.weight"].shape == (3, 4 * 6 * 6)
    assert layer_shapes(networks[0], (3, 8, 8))[-1] == (3,)


def test_lazy_weights_that_no_sample_fits_are_named() -> None:
    with pytest.raises(SettingsError, match=r"shape \(3,\), by which first.weight would be drawn"):
        network_of(Lazy(), name="own", input_shape=(3,))


def test_categories_beside_numbers_are_found_and_a_single_value_is_an_input() -> None:
    torch.manual_seed(0)
    module, shapes = Tabular().train(), {"kind": (), "readings": (2,)}
    kind, readings = torch.tensor([0, 1, 4, 2]), torch.randn(4, 2)
    row = torch.from_numpy(rows_of({"kind": kind, "readings": readings}, shapes))
    network = network_of(copy.deepcopy(module), name="own", input_shape=shapes)
    _assert_learns_alike(network, module, row, module(kind, readings))


def test_a_factory_says_that_an_input_is_a_single_value() -> None:
    options = {"input_shape": {"kind": (), "readings": [2]}}
    reference = "tests.unit.runtime.models.strange_networks:Tabular"
    network = load_network(reference, options, seed=0)
    assert network.input_shape == (3,)


def test_embeddings_learn_by_dense_gradients() -> None:
    network = network_of(Sparse(), name="own", input_shape=(3,))
    outputs = network.train()(torch.tensor([[0.0, 1.0, 2.0]]))
    assert not any(gradient.is_sparse for gradient in _gradients(network, outputs).values())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda script: script, "own was made by torch.jit, .* the one that it was made of"),
        (lambda script: nn.Sequential(nn.Linear(8, 8), script), "1 of own was made by torch.jit"),
    ],
)
def test_a_module_of_torchs_scripts_is_refused(
    build: Callable[[nn.Module], nn.Module], words: str
) -> None:
    script: nn.Module = torch.jit.script(nn.Sequential(nn.Linear(8, 6), nn.ReLU()))
    with pytest.raises(SettingsError, match=words):
        network_of(build(script), name="own", input_shape=(8,))


@pytest.mark.parametrize("module", [Binary().double(), nn.Sequential(nn.Linear(8, 3)).bfloat16()])
def test_numbers_of_another_type_are_named_with_what_would_be_right(module: nn.Module) -> None:
    with pytest.raises(SettingsError, match=r"its parameters are \w+, .* \.float\(\)"):
        layer_shapes(network_of(module, name="own", input_shape=(8,)), (8,))


class _Loss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.fc(x).pow(2).mean()
        return outputs


def test_a_network_that_gives_its_loss_is_told_what_to_give() -> None:
    expected = r"own gives a tensor of shape \(\) for 2 samples in training, and what is learnt"
    with pytest.raises(SettingsError, match=expected):
        network_of(_Loss(), name="own", input_shape=(8,))


def _drawn(network: Network, x: Tensor, key: int, cut: int) -> Tensor:
    """What the network gives in training, cut there, by a step's key."""
    device_side, server_side = split(network.train(), cut)
    set_dropout_keys(network, [((key,), len(x))])
    torch.manual_seed(100 * cut + key)  # Not what draws go by.
    outputs: Tensor = server_side(device_side(x)).detach()
    return outputs


def test_what_is_drawn_beside_the_samples_is_drawn_in_every_step_anew() -> None:
    torch.manual_seed(0)
    network, x = network_of(Dropping(0.5), name="own", input_shape=(8,)), torch.randn(4, 8)
    assert not any(name.startswith("dropping.") for name in layers_of(network))
    found = {key: _drawn(network, x, key, 0) for key in range(8)}
    for key, outputs in found.items():
        for cut in range(len(layers_of(network)) + 1):
            assert torch.equal(_drawn(network, x, key, cut), outputs)
    assert len({tuple(outputs.flatten().tolist()) for outputs in found.values()}) == 8


def test_layers_that_are_never_left_out_can_be_cut_between() -> None:
    network = network_of(Dropping(0.0), name="own", input_shape=(8,))
    assert any(name.startswith("dropping.") for name in layers_of(network))


def test_draws_that_all_threads_share_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"own draws random numbers by numpy .* by torch"):
        network_of(ByNumpy(), name="own", input_shape={"x": (8,)})


KEPT: list[Callable[..., Tensor]] = []


class _Imports(nn.Module):
    """Keeps what draws, as a module does that is imported as soon as it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        KEPT.append(torch.rand)
        outputs: Tensor = self.layer(x) + x
        return outputs


def test_what_was_imported_while_a_network_was_recorded_draws_as_before() -> None:
    network_of(_Imports(), name="own", input_shape=(8,))
    assert {type(rand(2)) for rand in KEPT} == {Tensor}
