"""The trial of one network: loaded, cut at three places, a step on each engine."""

import copy
import gc
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.networks.brought import BATCH, Brought
from device_agent.engines.onnx_executor import OnnxExecutor
from edge_coordinator.onnx_export import export_device_side
from runtime.errors import SettingsError
from runtime.models.dropout import seed_dropout, set_dropout_keys
from runtime.models.given_gradient import with_gradient
from runtime.models.graph.draws import DRAWN
from runtime.models.graph.rows import rows_of
from runtime.models.graph.tracer import main_output
from runtime.models.load import network_of, split
from runtime.models.sequence import Network, layers_of
from runtime.models.side import Side, empty_state
from runtime.wire.commands import OptimizerSpec

KEY = (7, 1, 2, 3)
LEARNING_RATE = 0.01
ONNX_TOLERANCE = 1e-3
"""Of outputs and weights, relative."""
EPSILON = 2.0**-24
MARGIN, DRAWS = 2, 12
"""Or so many times the most that torch's own step moves, in so many draws, where inputs and weights
are rounded otherwise: one ReLU that passes or not moves a gradient of two samples by a tenth."""


@dataclass
class TriedNetwork:
    """What became of one network."""

    name: str
    library: str
    skipped: str = ""
    """Why it was not tried."""
    refusal: str = ""
    load_s: float = 0.0
    cuts: list[str] = field(default_factory=list)
    """Names of those that are offered."""
    tried: list[str] = field(default_factory=list)
    is_equal: list[bool] = field(default_factory=list)
    """Whether the step in two is that of the whole to the bit, at each that was tried."""
    compared_with: str = ""
    onnx: list[str] = field(default_factory=list)
    """What became of each on ONNX Runtime: empty where it trains."""
    export_s: float = 0.0


def try_network(brought: Brought, *, num_cuts: int, with_onnx: bool) -> TriedNetwork:
    """Load it, and train a step at some cuts on both engines."""
    result = TriedNetwork(brought.name, brought.library)
    try:
        module = _build(brought)
    except ImportError as error:
        result.skipped = f"{brought.library} is not installed: {error}"
        return result
    start_s = time.perf_counter()
    try:
        network = network_of(module, name=brought.name, input_shape=brought.inputs)
    except SettingsError as error:
        result.refusal = str(error)
        return result
    result.load_s = time.perf_counter() - start_s
    seed_dropout(network)
    names = list(layers_of(network))
    result.cuts = names[:-1]
    x = _as_it_travels(brought)
    expected, result.compared_with = _expected(brought, network, x)
    for cut in _spread(len(names) - 1, num_cuts):
        result.tried.append(names[cut - 1])
        result.is_equal.append(_equal(_step_in_two(copy.deepcopy(network), cut, x), expected))
        if with_onnx:
            start_s = time.perf_counter()
            result.onnx.append(_onnx_trouble(copy.deepcopy(network), cut, x))
            result.export_s += time.perf_counter() - start_s
        gc.collect()
    return result


def _build(brought: Brought) -> nn.Module:
    torch.manual_seed(0)
    return brought.build()


def _as_it_travels(brought: Brought) -> Tensor:
    samples = brought.samples()
    if isinstance(samples, dict):
        assert isinstance(brought.inputs, dict)
        return torch.from_numpy(rows_of(samples, brought.inputs))
    return samples.float()


def _spread(num_cuts: int, wanted: int) -> list[int]:
    """Cuts from the first to the last, evenly."""
    return sorted({round(at) for at in np.linspace(1, num_cuts, wanted)}) if num_cuts else []


Step = tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]
"""Outputs, gradients by parameter, and the state afterwards."""


def _expected(brought: Brought, network: Network, x: Tensor) -> tuple[Step, str]:
    """The step of the user's own module; of the graph where the module draws in its own way."""
    if any(name.startswith(f"{DRAWN}.") for name, _ in network.named_modules()):
        whole = copy.deepcopy(network)
        _prepare(whole)
        return _step(whole, whole(x.clone())), "graph"
    module = _build(brought)
    seed_dropout(module)  # type: ignore[arg-type]
    _prepare(module)
    samples = brought.samples()
    given = module(**samples) if isinstance(samples, dict) else module(samples)
    outputs = main_output(given)
    assert isinstance(outputs, Tensor)
    return _step(module, outputs), "module"


def _step(module: nn.Module, outputs: Tensor) -> Step:
    torch.autograd.backward(outputs.pow(2).mean())
    gradients = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
    return outputs.detach(), gradients, _own_state(module)


def _own_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of the user's own module, without what travels beside it."""
    beside = module.constants if isinstance(module, Network) else frozenset()
    return {name: tensor for name, tensor in module.state_dict().items() if name not in beside}


def _step_in_two(network: Network, cut: int, x: Tensor) -> Step:
    device_side, server_side = split(network, cut)
    _prepare(device_side)
    _prepare(server_side)
    smashed = device_side(x.clone())
    received = torch.from_numpy(np.array(smashed.detach().numpy())).requires_grad_()
    step = _step(network, server_side(received))
    if received.grad is None or not smashed.requires_grad:
        return step
    gradient = torch.from_numpy(np.array(received.grad.numpy()))
    torch.autograd.backward(with_gradient(smashed, gradient))
    gradients = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    return step[0], gradients, _own_state(network)


def _prepare(module: nn.Module) -> None:
    module.train()
    set_dropout_keys(module, [(KEY, BATCH)])
    torch.manual_seed(3)


def _equal(found: Step, expected: Step) -> bool:
    return torch.equal(found[0], expected[0]) and all(
        ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)
        for ours, theirs in zip(found[1:], expected[1:], strict=True)
    )


def _onnx_trouble(network: Network, cut: int, x: Tensor) -> str:
    """Say why the device side does not train on ONNX Runtime as it does on torch."""
    device_side, _ = split(network, cut)
    try:
        graphs = export_device_side(device_side, tuple(x.shape[1:]), batch_size=BATCH)
    except SettingsError as error:
        return str(error)
    optimizer = OptimizerSpec()
    side = Side(device_side, optimizer, carry_state=False, state=empty_state())
    executor = OnnxExecutor(
        graphs, optimizer, carry_state=False, loss="cross_entropy", num_threads=1
    )
    executor.load(side.tensors())
    executor.load_frozen(side.frozen())
    smashed = executor.forward(x.numpy(), dropout_key=KEY)
    gradient = np.random.default_rng(0).standard_normal(smashed.shape).astype(np.float32)
    executor.backward(gradient, learning_rate=LEARNING_RATE)
    expected = _by_torch(copy.deepcopy(device_side), x, gradient, seed=None)
    worst = _worst([smashed, *executor.tensors()], expected)
    allowed = ONNX_TOLERANCE
    for seed in range(DRAWS) if worst >= allowed else ():
        moved = _by_torch(copy.deepcopy(device_side), x, gradient, seed=seed)
        allowed = max(allowed, MARGIN * _worst(moved, expected))
    return "" if worst < allowed else f"differs from torch by {worst:.1e}, not {allowed:.1e}"


def _by_torch(
    device_side: Network, x: Tensor, gradient: NDArray[np.float32], *, seed: int | None
) -> list[NDArray[Any]]:
    """Smashed data and state after torch's step; with a seed, of inputs a rounding off."""
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            x = x * (1 + EPSILON * torch.randn(x.shape, generator=generator))
            for weight in device_side.parameters():
                weight.mul_(1 + EPSILON * torch.randn(weight.shape, generator=generator))
    _prepare(device_side)
    outputs = device_side(x.clone())
    _train(device_side, outputs, gradient)
    side = Side(device_side, OptimizerSpec(), carry_state=False, state=empty_state())
    return [outputs.detach().numpy(), *side.tensors()]


def _worst(ours: list[NDArray[Any]], theirs: list[NDArray[Any]]) -> float:
    return max(_difference(*pair) for pair in zip(ours, theirs, strict=True))


def _train(device_side: Network, outputs: Tensor, gradient: NDArray[np.float32]) -> None:
    if not outputs.requires_grad:
        return
    torch.autograd.backward(with_gradient(outputs, torch.from_numpy(gradient)))
    with torch.no_grad():
        for parameter in device_side.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=LEARNING_RATE)


def _difference(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    scale = max(float(np.abs(theirs).max(initial=0)), 1e-6)
    return float(np.abs(ours.astype(np.float64) - theirs).max(initial=0)) / scale
