"""The executor keeps the contract of an engine; its optimisers are torch's."""

import gc
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from device_agent.engines.graph_cost import check_cost
from device_agent.engines.numpy_training import empty_slots, load_loss, update
from device_agent.engines.onnx_executor import OnnxExecutor
from device_agent.limits import Limits
from edge_coordinator.onnx_export import export_device_side
from runtime.errors import SettingsError
from runtime.wire.commands import OptimizerSpec
from runtime.wire.device_graphs import (
    DeviceGraphs,
)
from tests.unit.device_agent.engines.engine_comparison import (
    draw_samples,
    open_executor,
    relative_error,
    torch_optimizer,
)

pytestmark = pytest.mark.numerics

SPECS = [
    OptimizerSpec(),
    OptimizerSpec(weight_decay=0.01),
    OptimizerSpec(momentum=0.9),
    OptimizerSpec(momentum=0.9, nesterov=True, weight_decay=0.01),
    OptimizerSpec(name="adam"),
    OptimizerSpec(name="adam", weight_decay=0.01, beta1=0.8, epsilon=1e-6),
    OptimizerSpec(name="adamw", weight_decay=0.01),
]


@pytest.fixture(scope="module")
def graphs() -> DeviceGraphs:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
    return export_device_side(module, (5,), batch_size=8)


def fresh_state(executor: OnnxExecutor) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    specs = executor.model_specs()
    return [random.random(spec.shape).astype(spec.dtype) for spec in specs]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_twenty_updates_are_those_of_torch(spec: OptimizerSpec) -> None:
    random = np.random.default_rng(0)
    parameter = random.standard_normal((6, 5)).astype(np.float32)
    theirs = nn.Parameter(torch.from_numpy(parameter.copy()))
    optimizer = torch_optimizer([theirs], spec)
    slots = empty_slots(parameter, spec)
    for step in range(20):
        gradient = random.standard_normal((6, 5)).astype(np.float32)
        learning_rate = 0.1 / (1 + step)
        optimizer.param_groups[0]["lr"] = learning_rate
        theirs.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        update(parameter, gradient, slots, spec, learning_rate=learning_rate)
    assert relative_error(parameter, theirs.detach().numpy()) < 1e-6
    assert tuple(slots) == spec.slots
    for slot, value in slots.items():
        expected = np.asarray(optimizer.state[theirs][slot])
        assert value.shape == expected.shape
        assert relative_error(value, expected) < 1e-6


@pytest.mark.parametrize("name", ["cross_entropy", "mse"])
def test_a_loss_and_its_gradient_are_those_of_torch(name: str) -> None:
    from runtime.models.losses import load_loss as load_torch_loss  # noqa: PLC0415

    outputs = draw_samples((7,), num_samples=5)
    labels = np.arange(5) if name == "cross_entropy" else draw_samples((7,), num_samples=5)[::-1]
    theirs = torch.from_numpy(outputs.copy()).requires_grad_()
    expected = load_torch_loss(name)(theirs, torch.from_numpy(labels.copy()))
    expected.backward()  # type: ignore[no-untyped-call]
    loss, gradient = load_loss(name)(outputs, labels)
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    assert theirs.grad is not None
    assert relative_error(gradient, theirs.grad.numpy()) < 1e-6


def test_a_loss_of_the_users_own_is_refused() -> None:
    with pytest.raises(SettingsError, match="use --engine torch"):
        load_loss("mine.losses:focal")


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_another_executor_goes_on_where_one_stopped(
    graphs: DeviceGraphs, spec: OptimizerSpec
) -> None:
    first, second = open_executor(graphs, spec), open_executor(graphs, spec)
    first.load(fresh_state(first))
    x, gradient = draw_samples((5,), num_samples=8), draw_samples((3,), num_samples=8)
    for executor in (first, first, second):
        if executor is second:
            second.load(first.tensors())
            first.forward(x, dropout_key=(1,))
            first.backward(gradient, learning_rate=0.1)
        executor.forward(x, dropout_key=(1,))
        executor.backward(gradient, learning_rate=0.1)
    for ours, theirs in zip(first.tensors(), second.tensors(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_slots_that_do_not_travel_start_anew_with_each_load(graphs: DeviceGraphs) -> None:
    executor = OnnxExecutor(
        graphs, OptimizerSpec(name="adam"), carry_state=False, loss="mse", num_threads=1
    )
    start = fresh_state(executor)
    x, gradient = draw_samples((5,), num_samples=8), draw_samples((3,), num_samples=8)
    results = []
    for _ in range(2):
        executor.load(start)
        executor.forward(x, dropout_key=())
        executor.backward(gradient, learning_rate=0.1)
        results.append(executor.tensors())
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


def test_what_the_executor_gives_and_takes_is_its_own(graphs: DeviceGraphs) -> None:
    executor = open_executor(graphs, OptimizerSpec(momentum=0.9))
    start = fresh_state(executor)
    kept = [value.copy() for value in start]
    executor.load(start)
    taken = executor.tensors()
    x, gradient = draw_samples((5,), num_samples=8), draw_samples((3,), num_samples=8)
    smashed = executor.forward(x, dropout_key=())
    before = smashed.copy()
    executor.backward(gradient, learning_rate=0.1)
    executor.forward(x + 1, dropout_key=())
    np.testing.assert_array_equal(smashed, before)
    for values in (start, taken):
        for value, expected in zip(values, kept, strict=True):
            np.testing.assert_array_equal(value, expected)


def test_evaluation_changes_nothing(graphs: DeviceGraphs) -> None:
    executor = open_executor(graphs, OptimizerSpec())
    executor.load(fresh_state(executor))
    before = executor.tensors()
    executor.predict(draw_samples((5,), num_samples=11))
    for value, expected in zip(executor.tensors(), before, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_a_whole_network_learns(graphs: DeviceGraphs) -> None:
    executor = open_executor(graphs, OptimizerSpec(momentum=0.9))
    executor.load(fresh_state(executor))
    x = draw_samples((5,), num_samples=8)
    labels = (x[:, 0] > 0).astype(np.int64)
    losses = [
        executor.train(x, labels, dropout_key=(step,), learning_rate=0.1) for step in range(30)
    ]
    assert losses[-1] < losses[0] / 3


def test_graphs_of_a_fixed_batch_size_evaluate_any_number_and_train_only_theirs() -> None:
    from edge_coordinator.onnx_export import device_side  # noqa: PLC0415

    module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))
    fixed = device_side.export_fixed(module, torch.zeros(4, 5))
    assert fixed.manifest.batch_size == 4
    executor = open_executor(fixed, OptimizerSpec())
    executor.load([value.numpy() for value in module.state_dict().values()])
    x = draw_samples((5,), num_samples=11)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x)).numpy()
    assert relative_error(executor.predict(x), expected) < 1e-6
    with pytest.raises(SettingsError, match="batches of 4 samples, not 11"):
        executor.forward(x, dropout_key=())


def test_the_device_imports_neither_torch_nor_onnx() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None; "
        "import device_agent.engines.onnx_executor"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _loaded() -> set[int]:
    """What is loaded of all graphs, by address."""
    gc.collect()
    return {id(each) for each in gc.get_objects() if type(each) is ort.InferenceSession}


def test_devices_of_one_process_share_what_is_loaded_of_equal_graphs(graphs: DeviceGraphs) -> None:
    spec = OptimizerSpec()
    before = _loaded()
    alone, *others = (open_executor(graphs, spec) for _ in range(5))
    assert len(_loaded() - before) == 2  # Forward and backward.
    state, x = fresh_state(alone), draw_samples((5,), num_samples=8)
    for factor, executor in enumerate(others, start=1):
        executor.load([np.asarray(factor * tensor, tensor.dtype) for tensor in state])

    def train(executor: OnnxExecutor) -> list[bytes]:
        for _ in range(20):
            gradient = executor.forward(x, dropout_key=(0,))
            executor.backward(gradient, learning_rate=0.01)
        return [tensor.tobytes() for tensor in executor.tensors()]

    with ThreadPoolExecutor(len(others)) as pool:
        together = list(pool.map(train, others))
    for factor, trained in enumerate(together, start=1):
        alone.load([np.asarray(factor * tensor, tensor.dtype) for tensor in state])
        assert train(alone) == trained
    del alone, others, executor
    assert _loaded() <= before


def test_a_recurrent_layer_is_priced_though_its_shapes_are_computed_of_shapes() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            last: torch.Tensor = self.cells(x)[0][:, -1]
            return last

    graphs = export_device_side(Last(), (5, 3), batch_size=2)
    check_cost(graphs, batch_size=7, limits=Limits(memory_bytes=1_000_000, step_flop=1e6))
    with pytest.raises(SettingsError, match=r"may take 1.0e\+02"):
        check_cost(graphs, batch_size=7, limits=Limits(step_flop=100.0))
