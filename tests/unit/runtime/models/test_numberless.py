"""What is recorded and counted on shapes alone is what numbers give."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from runtime.models.graph.numberless import ShapesAlone, numberless
from runtime.models.graph.rows import DoesNotTravelError, entry_of
from runtime.models.graph.tracer import trace
from runtime.models.graph.values import BATCHES, values_of
from runtime.models.load import layer_shapes, network_of, refused_cuts
from runtime.models.sequence import layers_of
from tests.root import ROOT
from tests.unit.runtime.models.brought_networks import BROUGHT

PICTURES = [name for name, (_, shape) in BROUGHT.items() if len(shape) == 3]


def _samples(name: str) -> tuple[Tensor, ...]:
    _, shape = BROUGHT[name]
    assert isinstance(shape, tuple)
    return tuple(torch.randn(size, *shape) for size in BATCHES)


def _entry(node: fx.Node) -> object:
    """How what a node gives would travel, or why it cannot; or what else it is."""
    values = values_of(node)
    if not isinstance(values[0], Tensor):
        return [value for value in values if isinstance(value, int | torch.Size)]
    try:
        return entry_of(values)
    except DoesNotTravelError as error:
        return str(error)


def _recorded(module: nn.Module, samples: tuple[Tensor, ...], shapes: nn.Module | None) -> Any:  # noqa: ANN401
    _, graph = trace(module, samples, shapes=shapes)
    nodes = [node for node in graph.nodes if node.op != "output"]
    return [(node.op, str(node.target), str(node.args), _entry(node)) for node in nodes]


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("training", [True, False])
def test_the_second_batch_tells_by_its_shapes_what_it_tells_by_numbers(
    name: str, *, training: bool
) -> None:
    build, _ = BROUGHT[name]
    torch.manual_seed(5)
    module, samples = build().train(training), _samples(name)
    by_shapes = _recorded(module, samples, numberless(module))
    assert by_shapes == _recorded(module, samples, None)


class _AsksForNumbers(nn.Module):
    """Chooses by numbers, and goes on where there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        try:
            kept = self.fc(x)[:, torch.ones(4).nonzero().flatten()]
        except Exception:
            return x
        outputs: Tensor = kept[kept.abs().sum(1) >= 0]
        return outputs


def test_code_that_needs_numbers_has_them_also_where_it_goes_on_without() -> None:
    module, samples = _AsksForNumbers().eval(), (torch.ones(2, 4), torch.ones(3, 4))
    _, graph = trace(module, samples, shapes=numberless(module))
    values = values_of(next(node for node in reversed(graph.nodes) if node.op != "output"))
    assert [tuple(value.shape) for value in values] == [(2, 4), (3, 4)]
    assert not any(value.is_meta for value in values)
    assert len([node for node in graph.nodes if node.op == "call_module"]) == 1


def test_batch_norm_without_numbers_has_the_shapes_and_gradients_of_one_with() -> None:
    for affine in (True, False):
        layer = nn.BatchNorm2d(3, affine=affine)
        with ShapesAlone():
            x = torch.empty(2, 3, 5, 5, requires_grad=True)
            outputs = numberless(layer)(x)
            torch.autograd.backward(outputs, torch.empty_like(outputs))
        assert x.grad is not None
        assert outputs.is_meta
        assert (outputs.shape, x.grad.shape) == (x.shape, x.shape)


def test_what_is_tied_stays_tied_without_numbers() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    module[0].weight.requires_grad = False
    copied = numberless(module)
    assert copied[0].weight is copied[1].weight
    assert copied[0].weight.is_meta
    assert not copied[0].weight.requires_grad
    assert not module[0].weight.is_meta


def test_a_cut_table_is_the_same_whether_torch_has_its_compiler_or_not() -> None:
    program = (
        "import sys, torch\n"
        "from runtime.models.cut_table import measure_cut_table\n"
        "from runtime.models.load import network_of\n"
        "from tests.unit.runtime.models.brought_networks import BROUGHT\n"
        "names = ('tutorial', 'residual', 'lstm')\n"
        "brought = {name: BROUGHT[name] for name in names}\n"
        "networks = {n: network_of(b(), name=n, input_shape=s) for n, (b, s) in brought.items()}\n"
        "def tables():\n"
        "    return {name: measure_cut_table(n, name=name, input_shape=n.input_shape)\n"
        "            for name, n in networks.items()}\n"
        "before = tables()\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "import torch._dynamo\n"
        "for name, table in tables().items():\n"
        "    assert table == before[name], name\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PICTURES)
def test_a_recorded_network_knows_what_its_layers_give(name: str) -> None:
    build, shape = BROUGHT[name]
    assert isinstance(shape, tuple)
    network = network_of(build(), name=name, input_shape=shape).eval()
    x, found = torch.zeros(1, *shape), []
    for layer in layers_of(network).values():
        x = layer(x)
        found.append(tuple(x.shape[1:]))
    assert layer_shapes(network, shape) == tuple(found)
    assert refused_cuts(network, shape) == {}
