"""One step of the device side on ONNX Runtime beside the same step on torch."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from device_agent.engines.onnx_executor import OnnxExecutor
from runtime.models.dropout import seed_dropout, set_dropout_keys
from runtime.wire.commands import OptimizerSpec
from runtime.wire.device_graphs import DeviceGraphs
from runtime.wire.frames import Tensor

LEARNING_RATE = 0.1
KEY = (7, 1, 2, 3)
MOMENTUM = OptimizerSpec(momentum=0.9)


@dataclass(frozen=True)
class Step:
    """What one step gives; lists are in the order of the parameters or of the state dict."""

    outputs: Tensor
    gradients: list[Tensor]
    weights: list[Tensor]
    predicted: Tensor

    def vectors(self) -> dict[str, NDArray[np.float64]]:
        """All of each kind as one vector: single tensors may have a norm of zero."""
        return {
            name: _vector(value if isinstance(value, list) else [value])
            for name, value in vars(self).items()
        }


def relative_error(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    """Norm of the difference over the norm of what is expected."""
    difference = np.linalg.norm(actual.astype(np.float64) - expected)
    return float(difference / max(float(np.linalg.norm(expected)), 1e-30))


def assert_same_step(module: nn.Module, graphs: DeviceGraphs, samples: NDArray[Any]) -> None:
    """Within 1e-5 of torch, or no further from float64 than twice what torch is."""
    module = seed_dropout(module)  # type: ignore[arg-type]
    gradient = draw_samples(graphs.manifest.smashed_shape, num_samples=len(samples))
    gradient = gradient / np.float32(len(samples))
    single = step_on_torch(module, samples, gradient, dtype=torch.float32).vectors()
    double = step_on_torch(module, samples, gradient, dtype=torch.float64).vectors()
    onnx = step_on_onnxruntime(module, graphs, samples, gradient).vectors()
    for name, actual in onnx.items():
        error = relative_error(actual, single[name])
        of_onnx = relative_error(actual, double[name])
        of_torch = relative_error(single[name], double[name])
        assert error <= 1e-5 or of_onnx <= 2 * of_torch, (name, error, of_onnx, of_torch)


def step_on_torch(
    module: nn.Module, x: NDArray[Any], gradient: NDArray[np.float32], *, dtype: torch.dtype
) -> Step:
    """Forward, backward, update by SGD with momentum, and an evaluation."""
    module = copy.deepcopy(module).to(dtype).train()
    samples = torch.from_numpy(x)
    samples = samples.to(dtype) if samples.is_floating_point() else samples
    set_dropout_keys(module, [(KEY, len(x))])
    trained = list(module.parameters())
    outputs = module(samples)
    if trained:
        outputs.backward(torch.from_numpy(gradient).to(dtype))
        torch.optim.SGD(trained, lr=LEARNING_RATE, momentum=MOMENTUM.momentum).step()
    weights = [value.numpy() for value in module.state_dict().values()]
    gradients = [np.asarray(parameter.grad) for parameter in trained]
    with torch.no_grad():
        predicted = module.eval()(samples).numpy()
    return Step(outputs.detach().numpy(), gradients, weights, predicted)


def step_on_onnxruntime(
    module: nn.Module, graphs: DeviceGraphs, x: NDArray[Any], gradient: NDArray[np.float32]
) -> Step:
    """Do the same; the momentum buffers after a first step are the gradients."""
    executor = open_executor(graphs, MOMENTUM)
    state = [value.numpy() for value in module.state_dict().values()]
    executor.load(state + [np.zeros(p.shape, np.float32) for p in module.parameters()])
    outputs = executor.forward(x, dropout_key=KEY)
    executor.backward(gradient, learning_rate=LEARNING_RATE)
    tensors = executor.tensors()
    weights, gradients = tensors[: len(state)], tensors[len(state) :]
    return Step(outputs, gradients, weights, executor.predict(x))


def open_executor(graphs: DeviceGraphs, optimizer: OptimizerSpec) -> OnnxExecutor:
    """Open an executor of one thread whose optimiser state travels."""
    return OnnxExecutor(graphs, optimizer, carry_state=True, loss="cross_entropy", num_threads=1)


def draw_samples(shape: Sequence[int], *, num_samples: int) -> NDArray[np.float32]:
    """Random samples, the same every time."""
    values = np.random.default_rng(5).standard_normal((num_samples, *shape))
    return values.astype(np.float32)


def _vector(arrays: Sequence[Tensor]) -> NDArray[np.float64]:
    flat = [np.asarray(array, dtype=np.float64).ravel() for array in arrays]
    return np.concatenate(flat) if flat else np.zeros(0)


def torch_optimizer(parameters: list[nn.Parameter], spec: OptimizerSpec) -> torch.optim.Optimizer:
    """Torch's own optimiser for a specification."""
    if spec.name == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=0.0,
            momentum=spec.momentum,
            nesterov=spec.nesterov,
            weight_decay=spec.weight_decay,
        )
    adam = torch.optim.Adam if spec.name == "adam" else torch.optim.AdamW
    return adam(
        parameters,
        lr=0.0,
        betas=(spec.beta1, spec.beta2),
        eps=spec.epsilon,
        weight_decay=spec.weight_decay,
    )
