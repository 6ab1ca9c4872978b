"""The device side on PyTorch."""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from device_agent.compute_probe import ComputeTimings
from device_agent.executor import DropoutKey
from device_agent.generic import built_in_assignment
from device_agent.torch_timing import time_network
from runtime.messages import Assignment, LayerWork
from runtime.models.dropout import seed_dropout, set_dropout_keys
from runtime.models.load import check_sample_shape, input_shape_of, load_network, split
from runtime.models.losses import Loss, load_loss
from runtime.models.side import Side, empty_state
from runtime.seeding import torch_seed
from runtime.tensors import Tensor, TensorSpec


class TorchEngine:
    """A job's network, built on the device from its name."""

    graphs = None

    def __init__(self, assignment: Assignment, *, sample_shape: tuple[int, ...]) -> None:
        self._assignment = assignment
        self._sample_shape = sample_shape
        network = load_network(
            assignment.network, assignment.options, seed=assignment.seed, sample_shape=sample_shape
        )
        self._network = seed_dropout(network)
        self._loss = load_loss(assignment.loss)
        self._open_at: tuple[int, TorchExecutor] | None = None

    def check(self, sample_shape: tuple[int, ...]) -> None:
        """SettingsError unless such samples fit the network."""
        check_sample_shape(self._network, sample_shape)

    def open(self, cut: int) -> "TorchExecutor":
        """Cut the network after so many layers; again at the same cut, the same executor.

        An executor holds nothing that `load` does not replace, and most rounds keep the cut.
        """
        if self._open_at is None or self._open_at[0] != cut:
            self._open_at = (cut, self._open(self._network, cut))
        return self._open_at[1]

    def layer_timings(
        self, batch: NDArray[np.float32], *, budget_s: float, clock: Callable[[], float]
    ) -> ComputeTimings:
        """Measure a copy of the network, at several cuts and layer by layer between them."""
        return time_network(
            copy.deepcopy(self._network),
            self._open,
            self._assignment.optimizer,
            batch,
            budget_s=budget_s,
            clock=clock,
        )

    def time_cut(
        self,
        cut: int,  # noqa: ARG002
        layers: Sequence[LayerWork],  # noqa: ARG002
        batch: NDArray[np.float32],
        *,
        budget_s: float,
        clock: Callable[[], float],
    ) -> ComputeTimings:
        """Measure the whole network: it is here."""
        return self.layer_timings(batch, budget_s=budget_s, clock=clock)

    def random_batch(self) -> NDArray[np.float32]:
        """Draw a mini-batch for a network that has no data."""
        shape = (self._assignment.batch_size, *self._sample_shape)
        return np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    def _open(self, network: nn.Sequential, cut: int) -> "TorchExecutor":
        device_side, _ = split(network, cut)
        return TorchExecutor(
            device_side, self._assignment, sample_shape=self._sample_shape, loss=self._loss
        )


def built_in_engine(name: str, *, batch_size: int) -> TorchEngine:
    """A built-in network with plain stochastic gradient descent, for a device without a job."""
    sample_shape = input_shape_of(load_network(name, {}, seed=0))
    assignment = built_in_assignment(name, batch_size=batch_size)
    return TorchEngine(assignment, sample_shape=sample_shape)


class TorchExecutor:
    """The device side at one cut; see `device_agent.executor.Executor`."""

    def __init__(
        self,
        layers: nn.Sequential,
        assignment: Assignment,
        *,
        sample_shape: tuple[int, ...],
        loss: Loss,
    ) -> None:
        self._side = Side(
            layers,
            assignment.optimizer,
            carry_state=assignment.carry_state,
            state=empty_state(),
        )
        self._layers = layers
        self._loss = loss
        with torch.no_grad():
            smashed = layers.eval()(torch.zeros(1, *sample_shape))
        self._smashed_shape = tuple(smashed.shape[1:])
        self._smashed = smashed

    def model_specs(self) -> tuple[TensorSpec, ...]:
        """Tensors that `load` takes and `tensors` gives."""
        return self._side.specs()

    def smashed_spec(self, num_samples: int) -> TensorSpec:
        """What `forward` gives for so many samples."""
        return TensorSpec("<f4", (num_samples, *self._smashed_shape))

    def load(self, tensors: Sequence[Tensor]) -> None:
        """Take over a device-side model."""
        self._side.load(tensors)

    def tensors(self) -> list[Tensor]:
        """Copies of what `load` takes."""
        return self._side.tensors()

    def forward(self, x: NDArray[np.float32], *, dropout_key: DropoutKey) -> NDArray[np.float32]:
        """Smashed data of a mini-batch; keeps what `backward` needs."""
        self._smashed = self._run(x, dropout_key)
        smashed: NDArray[np.float32] = self._smashed.detach().numpy()
        return smashed

    def backward(self, gradient: NDArray[np.float32], *, learning_rate: float) -> None:
        """Gradients of the last forward's parameters, and the update."""
        if self._smashed.requires_grad:
            torch.autograd.backward(self._smashed, torch.from_numpy(gradient))
        self._side.step(learning_rate)

    def train(
        self, x: NDArray[np.float32], y: Tensor, *, dropout_key: DropoutKey, learning_rate: float
    ) -> float:
        """Forward, loss, backward and update of a whole network; the loss."""
        loss = self._loss(self._run(x, dropout_key), torch.from_numpy(np.asarray(y)))
        torch.autograd.backward(loss)
        self._side.step(learning_rate)
        return loss.item()

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Forward in evaluation mode."""
        with torch.no_grad():
            outputs: NDArray[np.float32] = self._layers.eval()(torch.from_numpy(x)).numpy()
        return outputs

    def _run(self, x: NDArray[np.float32], dropout_key: DropoutKey) -> torch.Tensor:
        # Random layers that we do not know draw from torch's own generator.
        torch.default_generator.manual_seed(torch_seed(dropout_key))
        set_dropout_keys(self._layers, [(dropout_key, len(x))])
        outputs: torch.Tensor = self._layers.train()(torch.from_numpy(x))
        return outputs
