"""A device's network: built without its weights, and given memory for what it runs only."""

from itertools import count

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from device_agent.engines.measurement import complete
from device_agent.engines.torch_engine import TorchEngine
from device_agent.profiling.reference_network import built_in_assignment
from runtime.models.device_side import DeviceNetwork
from runtime.models.load import load_network, split
from runtime.models.side import Side, empty_state
from runtime.models.skeleton import is_skeleton
from runtime.wire.commands import Assignment

SHAPE = (4,)
WIDE = 1000


def wide() -> nn.Module:
    """A small layer below a large one."""
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, WIDE), nn.Linear(WIDE, 2))


class Twice(nn.Module):
    """One weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        """First, then second."""
        return torch.as_tensor(self.second(self.first(x)))


def tied() -> nn.Module:
    """A layer that is tied within itself."""
    return nn.Sequential(Twice(), nn.Linear(4, 2))


def lazy() -> nn.Module:
    """Layers that learn their widths from a sample."""
    return nn.Sequential(nn.LazyLinear(3), nn.ReLU(), nn.LazyLinear(2))


class Beside(nn.Module):
    """A tensor beside the state."""

    def __init__(self, *, is_buffer: bool) -> None:
        super().__init__()
        self.scale = torch.full((4,), 2.0)
        if is_buffer:
            del self.scale
            self.register_buffer("scale", torch.full((4,), 2.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scaled."""
        return x * self.scale


def beside() -> nn.Module:
    """A network with a tensor as an attribute."""
    return nn.Sequential(Beside(is_buffer=False), nn.Linear(4, 2))


def beside_in_buffer() -> nn.Module:
    """A network with a buffer that does not travel."""
    return nn.Sequential(Beside(is_buffer=True), nn.Linear(4, 2))


def looking() -> nn.Module:
    """A network that looks at its weights while it is built."""
    layer = nn.Linear(4, 4)
    assert float(layer.weight.abs().max()) > 0
    return nn.Sequential(layer, nn.Linear(4, 2))


def test_a_device_has_memory_for_its_share_only() -> None:
    network = network_of("wide")
    network.open(1)
    assert is_skeleton(network.network)
    assert sum(spec.num_bytes for spec in network.open(1).model_specs()) == 4 * (3 * 4 + 3)


@pytest.mark.parametrize("name", ["wide", "tied", "lazy", "beside", "beside_in_buffer", "looking"])
@pytest.mark.parametrize("cut", [1, 2])
def test_a_device_side_computes_what_the_same_layers_of_the_whole_network_do(
    name: str, cut: int
) -> None:
    network = network_of(name)
    whole = load_network(network.assignment.network, {}, seed=0, sample_shape=SHAPE)
    layers, _ = split(whole, cut)
    weights = Side(layers, network.assignment.optimizer, carry_state=False, state=empty_state())
    x = np.random.default_rng(0).standard_normal((5, *SHAPE)).astype(np.float32)
    side = network.open(cut)
    side.load(weights.tensors())
    smashed = side.forward(x, dropout_key=(0,))
    with torch.no_grad():
        assert (smashed == layers(torch.from_numpy(x)).numpy()).all()


def test_a_tied_weight_stays_one_weight() -> None:
    layers = network_of("tied").copy(1)
    assert layers[0].first.weight is layers[0].second.weight  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["beside", "beside_in_buffer", "looking"])
def test_a_network_that_needs_its_numbers_has_them(name: str) -> None:
    network = network_of(name)
    network.open(1)
    assert not is_skeleton(network.network)


def test_layers_that_are_never_run_are_timed_by_their_work() -> None:
    assignment = assignment_of("wide").model_copy(update={"deepest_cut": 2})
    engine = TorchEngine(assignment, sample_shape=SHAPE, skeleton_from_bytes=0)
    batch = np.zeros((5, *SHAPE), np.float32)
    timing = engine.measure_layers(batch, budget_s=0.01, clock=count(step=1.0).__next__).take()
    found = complete(timing, sleep=lambda _: None)
    assert is_skeleton(engine.network)
    assert len(found.layer_names) == len(found.forward_s) == 4
    assert found.forward_s[3] > found.forward_s[1]


def network_of(name: str) -> DeviceNetwork:
    """A network of this module, as a device holds it."""
    return DeviceNetwork(assignment_of(name), sample_shape=SHAPE, skeleton_from_bytes=0)


def assignment_of(name: str) -> Assignment:
    """A job that trains a network of this module."""
    return built_in_assignment(f"{__name__}:{name}", batch_size=5)


def test_a_network_that_takes_less_than_the_compiler_is_built_as_it_is() -> None:
    assert is_skeleton(network_of("wide").network)
    assert not is_skeleton(DeviceNetwork(assignment_of("wide"), sample_shape=SHAPE).network)
