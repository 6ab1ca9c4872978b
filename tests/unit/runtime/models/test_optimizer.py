"""Our optimiser steps against torch's own classes, bit for bit."""

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from runtime.models.side import Side, empty_state
from runtime.wire.commands import OptimizerSpec
from tests.unit.device_agent.engines.engine_comparison import torch_optimizer

pytestmark = pytest.mark.numerics

SPECS: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.01},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    {"name": "adam"},
    {"name": "adam", "weight_decay": 0.01, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-6},
    {"name": "adamw", "weight_decay": 0.01},
    {"name": "adamw"},
]
RATES = (0.1, 0.03, 0.5, 1e-4, 0.02)


@pytest.mark.parametrize("options", SPECS, ids=str)
def test_steps_are_those_of_torch_bit_for_bit(options: dict[str, Any]) -> None:
    spec = OptimizerSpec.model_validate(options)
    ours = _layers()
    theirs = copy.deepcopy(ours)
    state = empty_state()
    side = Side(ours, spec, carry_state=True, state=state)
    optimizer = torch_optimizer([p for p in theirs.parameters() if p.requires_grad], spec)
    for number, rate in enumerate(RATES):
        for layers in (ours, theirs):
            _backward(layers, seed=number)
        side.step(rate)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(own, other)
        kept = {k: v for k, v in optimizer.state[other].items() if v is not None}
        assert set(state[own]) == set(kept)
        assert all(torch.equal(state[own][slot], kept[slot]) for slot in kept)


def test_training_and_counting_flop_import_neither_torchs_compiler_nor_its_algebra() -> None:
    program = (
        "import sys, torch\n"
        "from runtime.wire.commands import OptimizerSpec\n"
        "from runtime.models.cut_table import measure_cut_table\n"
        "from runtime.models.given_gradient import with_gradient\n"
        "from runtime.models.load import load_network\n"
        "from runtime.models.side import Side, empty_state\n"
        "network = load_network('lenet', {}, seed=0)\n"
        "measure_cut_table(network, name='lenet', input_shape=(1, 28, 28))\n"
        "spec = OptimizerSpec(name='adamw')\n"
        "side = Side(network, spec, carry_state=True, state=empty_state())\n"
        "outputs = network(torch.ones(2, 1, 28, 28))\n"
        "torch.autograd.backward(with_gradient(outputs, torch.ones_like(outputs)))\n"
        "side.step(0.1)\n"
        "found = {'torch._dynamo', 'sympy'} & sys.modules.keys()\n"
        "sys.exit(f'imported {found}' if found else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def _layers() -> nn.Sequential:
    """Layers with a convolution, whose weights are as torch lays them out, and a frozen one."""
    torch.manual_seed(1)
    layers = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.Tanh(), nn.Flatten(), nn.Linear(45, 7)
    )
    for parameter in layers[1].parameters():
        parameter.requires_grad = False
    return layers


def _backward(layers: nn.Sequential, *, seed: int) -> None:
    x = torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(seed))
    torch.autograd.backward(layers(x).square().mean())
