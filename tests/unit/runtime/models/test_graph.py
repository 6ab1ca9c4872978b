"""Any module as a network: cut where what crosses can travel, and trained in two as in one."""

import copy
from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from runtime.errors import SettingsError
from runtime.models.cut_table import measure_cut_table
from runtime.models.dropout import seed_dropout, set_dropout_keys
from runtime.models.given_gradient import with_gradient
from runtime.models.graph.capture import capture
from runtime.models.graph.rows import rows_of
from runtime.models.graph.tracer import main_output
from runtime.models.load import cut_index, network_of, split
from runtime.models.sequence import Network, layers_of
from tests.unit.runtime.models.brought_networks import (
    BROUGHT,
    TOKENS,
    Masked,
    MaskedAsWhole,
    Residual,
)

BATCH = 4


def _module(name: str) -> nn.Module:
    torch.manual_seed(5)
    build, _ = BROUGHT[name]
    return build()


def _samples(name: str) -> Tensor:
    """A batch as it travels."""
    _, shape = BROUGHT[name]
    generator = torch.Generator().manual_seed(1)
    if isinstance(shape, dict):
        ids = torch.randint(0, 12, (BATCH, 6), generator=generator)
        mask = (torch.arange(6) < torch.tensor([[6], [3], [5], [1]])).long()
        return torch.from_numpy(rows_of({"input_ids": ids, "attention_mask": mask}, shape))
    if name == "encoder":
        return torch.randint(0, 12, (BATCH, *shape), generator=generator).float()
    return torch.randn(BATCH, *shape, generator=generator)


def _outputs(name: str, module: nn.Module) -> Tensor:
    """What the user's own module gives for them."""
    x = _samples(name)
    if name == "masked":
        given = module(attention_mask=x[:, :6].long(), input_ids=x[:, 6:].long())
    else:
        given = module(x.long() if name == "encoder" else x)
    outputs = main_output(given)
    assert isinstance(outputs, Tensor)
    return outputs


def _captured(name: str) -> Network:
    return copy.deepcopy(_recorded(name))


@cache
def _recorded(name: str) -> Network:
    return network_of(_module(name), name=name, input_shape=BROUGHT[name][1])


def _prepare(module: nn.Module) -> None:
    module.train()
    set_dropout_keys(module, [((7,), BATCH)])


def _plain(name: str) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Outputs, gradients and state after a step of the user's own module."""
    module = _module(name)
    seed_dropout(module)  # type: ignore[arg-type]
    _prepare(module)
    outputs = _outputs(name, module)
    torch.autograd.backward(outputs.pow(2).mean())
    gradients = {key: p.grad for key, p in module.named_parameters() if p.grad is not None}
    return outputs.detach(), gradients, dict(module.state_dict())


@pytest.mark.parametrize("name", BROUGHT)
def test_a_step_in_two_is_the_step_of_the_module_bit_for_bit_at_every_cut(name: str) -> None:
    outputs, gradients, state = _plain(name)
    for cut in range(1, len(_captured(name)) + 1):
        network = _captured(name)
        device_side, server_side = split(network, cut)
        _prepare(device_side)
        _prepare(server_side)
        smashed = device_side(_samples(name))
        received = torch.from_numpy(np.array(smashed.detach().numpy())).requires_grad_()
        ours = server_side(received)
        torch.autograd.backward(ours.pow(2).mean())
        assert received.grad is not None
        gradient = torch.from_numpy(np.array(received.grad.numpy()))
        torch.autograd.backward(with_gradient(smashed, gradient))
        assert torch.equal(ours, outputs)
        found = {key: p.grad for key, p in network.named_parameters() if p.grad is not None}
        _assert_equal(found, gradients)
        _assert_equal(_own_state(network), state)


def _own_state(network: Network) -> dict[str, Tensor]:
    """What the user's own module has of its state."""
    return {n: t for n, t in network.state_dict().items() if n not in network.constants}


def _assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert set(found) == set(expected)
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("name", BROUGHT)
def test_the_weights_are_the_users_own_by_name_and_evaluate_as_they_do(name: str) -> None:
    network = _captured(name).eval()
    with torch.no_grad():
        outputs = network(_samples(name))
        module = _module(name).eval()
        for parameter in module.parameters():
            parameter.zero_()
        module.load_state_dict(_own_state(network), strict=True)
        assert torch.equal(outputs, _outputs(name, module))


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("tutorial", "conv1 relu pool conv2 relu_2 pool_2 flatten fc1 relu_3 fc2"),
        ("residual", "conv1 bn1 relu layer1.0.add layer1.0 layer1.1.add layer1 avgpool flatten fc"),
        ("lstm", "layers getitem_3 drop fc"),
    ],
)
def test_a_cut_is_named_after_the_module_or_function_that_it_follows(name: str, names: str) -> None:
    assert list(layers_of(_captured(name))) == names.split()


def test_what_ends_with_a_module_is_another_name_for_its_cut() -> None:
    network = _captured("residual")
    assert cut_index(network, "layer1.1") == cut_index(network, "layer1") == 7


@pytest.mark.parametrize(
    ("name", "cut", "reason"),
    [
        ("residual", "layer1.0.conv1", "2 tensors would have to cross"),
        ("tied", "first", "parameter first.weight is used before and after it"),
        ("residual", "layer7", "no layer named 'layer7' in residual; the layers are conv1, bn1"),
    ],
)
def test_a_cut_that_cannot_be_says_why(name: str, cut: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        cut_index(_captured(name), cut)


def test_a_copy_shares_nothing_and_trains_as_the_network_does() -> None:
    network = _captured("residual")
    twin = copy.deepcopy(network)
    _prepare(twin)
    torch.autograd.backward(twin(_samples("residual")).sum())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.grad is not None for parameter in twin.parameters())


def test_the_layers_cost_together_what_the_network_does() -> None:
    table = measure_cut_table(_captured("residual"), name="residual", input_shape=(3, 8, 8))
    assert [layer.kind for layer in table.layers][:4] == ["Conv2d", "BatchNorm2d", "ReLU", "add"]
    weights = sum(t.numel() * t.element_size() for t in Residual().state_dict().values())
    assert table.device_model_bits[-1] == 8 * weights


def test_frozen_layers_below_need_no_backward() -> None:
    module = Residual()
    for parameter in (*module.conv1.parameters(), *module.bn1.parameters()):
        parameter.requires_grad = False
    device_side, _ = split(network_of(module, name="frozen", input_shape=(3, 8, 8)), "bn1")
    assert not device_side.train()(torch.zeros(2, 3, 8, 8)).requires_grad


class _Noisy(nn.Module):
    """Draws in more ways than a dropout layer does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop = nn.Linear(4, 8), nn.Dropout(0.5)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.dropout(self.drop(self.first(x)), 0.5, self.training)
        x = self.drop(x)
        x, _ = self.attention(x, x, x, need_weights=False)
        heads = x.unsqueeze(1)
        heads = nn.functional.scaled_dot_product_attention(
            heads, heads, heads, dropout_p=0.5 if self.training else 0.0, is_causal=True
        )
        x = heads.squeeze(1)
        outputs: Tensor = self.last(x.mean(1) * torch.rand_like(x[:, 0]))
        return outputs


def test_whatever_draws_draws_the_same_at_every_cut() -> None:
    torch.manual_seed(0)
    network = capture(_Noisy(), name="noisy", input_shape=(5, 4))
    x = torch.randn(BATCH, 5, 4)
    _prepare(network)
    expected = network(x)
    for cut in range(len(network) + 1):
        device_side, server_side = split(network, cut)
        torch.manual_seed(100 + cut)
        smashed = device_side(x)
        torch.manual_seed(200 + cut)
        assert torch.equal(server_side(smashed), expected)
    _prepare(network)
    set_dropout_keys(network, [((8,), BATCH)])
    assert not torch.equal(network(x), expected)


class _Trained(nn.Module):
    """Wants targets of its own, as detectors do."""

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        assert targets is not None, "targets should not be none"
        return x - targets


def test_a_network_that_wants_its_targets_is_told_whose_they_are() -> None:
    with pytest.raises(SettingsError, match=r"targets should not be none; .* the job's"):
        network_of(_Trained(), name="detector", input_shape=(4,))


class _Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.fc(x)
        return outputs if x.sum() > 0 else -outputs


def test_code_that_asks_for_values_is_refused_in_a_sentence() -> None:
    with pytest.raises(
        SettingsError, match="counting cannot be recorded as a graph: its code asks"
    ):
        network_of(_Counting(), name="counting", input_shape=(4,))


def test_a_network_may_take_its_inputs_as_one_dictionary() -> None:
    whole = MaskedAsWhole()
    by_name = Masked()
    by_name.load_state_dict(whole.state_dict())
    networks = [network_of(each, name="masked", input_shape=TOKENS) for each in (whole, by_name)]
    assert [*layers_of(networks[0])] == [*layers_of(networks[1])]
    x = _samples("masked")
    first, second = (each.eval()(x) for each in networks)
    assert torch.equal(first, second)
