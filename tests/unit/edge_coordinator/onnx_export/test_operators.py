"""Operators that networks of libraries bring beside layers, beside torch's."""

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from edge_coordinator.onnx_export import export_device_side
from runtime.models.load import network_of
from runtime.wire.device_graphs import DeviceGraphs
from tests.unit.device_agent.engines.engine_comparison import assert_same_step, draw_samples


def _exported(module: nn.Module, shape: tuple[int, ...]) -> DeviceGraphs:
    """Export it and compare a step, of another batch size than that of the export."""
    network = network_of(module, name="brought", input_shape=shape)
    graphs = export_device_side(network, shape, batch_size=2)
    assert graphs.manifest.batch_size is None
    assert_same_step(network, graphs, draw_samples(shape, num_samples=3))
    return graphs


class _Places(nn.Module):
    """Takes values from places, and puts them there; has modules named as a network's own."""

    rows: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(7, 3))
        self.bias, self.layers = nn.Embedding(5, 3), nn.Linear(3, 2)
        self.register_buffer("rows", torch.tensor([[0, 6], [2, 2]]))

    def forward(self, x: Tensor) -> Tensor:
        """[sample, 4, 5, 3] to [sample, 2]."""
        x = torch.cat([torch.zeros(0), x], dim=-2)
        by_table = self.table[self.rows].sum((0, 1)) + self.bias(torch.arange(5))[1]
        corners = x[:, torch.tensor([[0], [2]]), torch.tensor([4, 1, 1])]
        columns = x.index_select(2, torch.tensor([3, 0])) + torch.roll(x, 1, 2)[:, :, ::3]
        largest = x.detach()[:, 0].sum(2).argmax(1)
        own = x[torch.arange(x.shape[0]), 1, largest]
        steps = torch.zeros_like(x)
        steps[:, :, 1::2] = x[:, :, ::3]
        x = corners.sum((1, 2)) + columns.mean((1, 2)) + own + steps.sum((1, 2))
        outputs: Tensor = self.layers(x * by_table)
        return outputs


class _Conditions(nn.Module):
    """Norms and remainders, and truth values put together bit by bit."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 3)
        self.groups, self.last = nn.GroupNorm(3, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, 4, 8] to [sample, 2]."""
        x = self.groups(self.conv(x))
        near = (x.abs() < 1) & ~(x.abs() < 0.1) | (x > 2) ^ (x > 3)
        x = x * near / x.norm(p=2, dim=2, keepdim=True)
        x = x.permute(0, 2, 1).unsqueeze(3).permute(0, 2, 1, 3)  # Channels last.
        pooled = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        outputs: Tensor = self.last(pooled + torch.fmod(pooled, 0.1) + x.norm(p=1))
        return outputs


def test_values_at_places_are_those_of_torch() -> None:
    torch.manual_seed(0)
    _exported(_Places(), (4, 5, 3))


def test_conditions_and_norms_are_those_of_torch() -> None:
    torch.manual_seed(0)
    _exported(_Conditions(), (4, 8))


def stochastic_depth(x: Tensor, p: float, mode: str, training: bool = True) -> Tensor:  # noqa: FBT001, FBT002
    """Leave out whole samples, as torchvision's function of this name does."""
    assert mode == "row"
    if not training:
        return x
    return x * x.new_empty((x.shape[0], *(1 for _ in x.shape[1:]))).bernoulli_(1 - p).div_(1 - p)


stochastic_depth.__module__ = "torchvision.ops.stochastic_depth"
fx.wrap("stochastic_depth")


class _Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.path = nn.Linear(4, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x + stochastic_depth(self.path(x), 0.4, "row", self.training)


def test_stochastic_depth_draws_one_number_for_a_sample_by_its_address() -> None:
    torch.manual_seed(0)
    (mask,) = _exported(_Deep(), (4,)).manifest.masks
    assert (mask.layer, mask.shape, mask.p) == ("stochastic_depth", (1,), 0.4)


class _AsksForTypes(nn.Module):
    """Asks what its tensors are, and drops in an attention, as Hugging Face's T5 does."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unsqueeze(1).chunk(3, -1)
        lowest = torch.finfo(q.dtype).min
        hidden = torch.full((3, 3), lowest, dtype=q.dtype, device=q.device).triu(1)
        rate = 0.5 if self.training else 0.0
        attended = functional.scaled_dot_product_attention(q, k, v, hidden, rate)
        return attended.flatten(1)


def test_code_that_asks_for_a_dtype_is_gone_through_to_the_dropout_inside() -> None:
    torch.manual_seed(0)
    (mask,) = _exported(_AsksForTypes(), (3, 4)).manifest.masks
    assert mask.layer == "scaled_dot_product_attention"
