"""The whole network on the edge server, cut anew for each cluster's turn.

Between turns the server holds every layer with its optimiser state, so a change of the cut moves
layers between two halves of one network and nothing else.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edge_coordinator.training.accumulated_step import AccumulatedStep
from edge_coordinator.training.aggregation import Aggregate
from edge_coordinator.training.algorithm import (
    ServerStep,
    Smashed,
    SpoiltStepError,
    StepFailedError,
)
from edge_coordinator.training.culprits import culprits
from edge_coordinator.training.evaluation import TASKS_OWN, Evaluation, evaluate_layers
from edge_coordinator.training.metrics import Metric
from runtime.datasets.samples import Samples
from runtime.errors import DivergedError
from runtime.models.dropout import seed_dropout, set_dropout_keys
from runtime.models.kernels import usual_kernels
from runtime.models.load import split
from runtime.models.losses import Loss
from runtime.models.sequence import Network, layers_of
from runtime.models.side import Side, empty_state
from runtime.seeding import Purpose, step_key, torch_seed
from runtime.wire.commands import Clip, OptimizerSpec
from runtime.wire.frames import Tensor, TensorSpec, specs_of
from runtime.wire.micro_batches import Rows

WEIGHTS = "weights/"
"""What the names of weights and buffers begin with in a snapshot."""


@dataclass(frozen=True)
class Training:
    """How both sides of the network learn."""

    server_optimizer: OptimizerSpec
    device_optimizer: OptimizerSpec
    carry_state: bool
    aggregate: Aggregate
    loss: Loss
    seed: int
    metric: Metric = TASKS_OWN
    clip: Clip | None = None
    """Of the server side's gradients."""
    evaluated_by: Loss | None = None
    """The loss of evaluations, if it is another."""


class EdgeModel:
    """The joint network with the optimiser state of every layer."""

    def __init__(self, network: Network, training: Training) -> None:
        seed_dropout(network)
        self.network = network
        self.training = training
        self._state = empty_state()

    @property
    def num_layers(self) -> int:
        """How many layers there are to cut between."""
        return len(layers_of(self.network))

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Every weight and buffer, and the optimiser state of every parameter, by name."""
        tensors = {f"{WEIGHTS}{name}": t for name, t in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            for slot, tensor in self._state.get(parameter, {}).items():
                tensors[f"state/{name}/{slot}"] = tensor
        # Files hold tensors as rows after rows, whatever the network's own order in memory.
        as_rows = torch.contiguous_format
        return {name: t.detach().clone(memory_format=as_rows) for name, t in tensors.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over a snapshot; KeyError or RuntimeError if it is of another network."""
        weights = _below(WEIGHTS, tensors)
        self.network.load_state_dict(weights)
        parameters = dict(self.network.named_parameters())
        self._state.clear()
        for slot_name, tensor in _below("state/", tensors).items():
            name, _, slot = slot_name.rpartition("/")
            self._state[parameters[name]][slot] = tensor.clone()

    def turn(self, *, cut: int, round_: int, learning_rate: float) -> "Turn":
        """Cut the network for one cluster's turn; `learning_rate` is the server's."""
        device_layers, server_layers = split(self.network, cut)
        training = self.training
        device_side = Side(
            device_layers,
            training.device_optimizer,
            carry_state=training.carry_state,
            state=self._state,
        )
        server_side = Side(
            server_layers, training.server_optimizer, carry_state=True, state=self._state
        )
        return Turn(
            device_side,
            server_side,
            training,
            round_=round_,
            learning_rate=learning_rate,
        )

    def evaluate(self, test: Samples) -> Evaluation:
        """Evaluate the joint network."""
        return self._evaluate(self.network, test)

    def evaluate_smashed(self, cut: int, smashed: Mapping[str, Smashed]) -> Evaluation:
        """Evaluate the layers above the cut on what the devices' layers gave."""
        _, server_layers = split(self.network, cut)
        return self._evaluate(server_layers, Samples(*_joined(smashed)))

    def _evaluate(self, layers: Network, test: Samples) -> Evaluation:
        loss = self.training.evaluated_by or self.training.loss
        return evaluate_layers(layers, test, loss, metric=self.training.metric)


class Turn:
    """The server during one cluster's turn; what it does, in `algorithm.Edge`'s words."""

    def __init__(
        self,
        device_side: Side,
        server_side: Side,
        training: Training,
        *,
        round_: int,
        learning_rate: float,
    ) -> None:
        self._device_side = device_side
        self._server_side = server_side
        self._training = training
        self._round = round_
        self._learning_rate = learning_rate
        self._epoch = 0

    def device_side(self) -> list[Tensor]:
        """Copies of the device-side model's tensors, carried optimiser slots at the end."""
        return self._device_side.tensors()

    def device_specs(self) -> tuple[TensorSpec, ...]:
        """Shapes of `device_side`."""
        return specs_of(self.device_side())

    def frozen(self) -> list[Tensor]:
        """Parameters of the device side that do not learn, which are not in `device_side`."""
        return self._device_side.frozen()

    def device_parts(self) -> list[str]:
        """What each of `device_side` is."""
        return self._device_side.parts()

    def aggregate(
        self, weights: Mapping[str, Sequence[Tensor]], sample_counts: Mapping[str, int]
    ) -> None:
        """Take over what becomes of the devices' models."""
        before = self._device_side.tensors()
        self._device_side.load(self._training.aggregate(weights, sample_counts, before))

    @usual_kernels()
    def step(self, smashed: Mapping[str, Smashed]) -> ServerStep:
        """Forward, mean loss over the cluster, backward, update; a gradient for each device."""
        devices = sorted(smashed)
        try:
            inputs, loss = self._loss(smashed)
        except Exception as error:  # The network and the loss may be the user's own.
            raise self._failed(smashed, error) from error
        if not torch.isfinite(loss):
            raise self._diverged(smashed, loss.item())
        try:
            torch.autograd.backward(loss)
        except RuntimeError as error:
            raise self._failed(smashed, error) from error
        self._server_side.step(self._learning_rate, self._training.clip)
        self._epoch += 1
        if inputs.grad is None:
            return ServerStep(loss.item(), {})
        parts = torch.split(inputs.grad, [len(smashed[device].data) for device in devices])
        return ServerStep(
            loss.item(), {device: part.numpy() for device, part in zip(devices, parts, strict=True)}
        )

    def begin(self, batch_sizes: Mapping[str, int]) -> None:
        """Begin a step that comes in micro-batches, of so many samples of each device."""
        self._step = AccumulatedStep(self._server_side, batch_sizes, self._loss)

    @usual_kernels()
    def add(self, device: str, rows: Rows, smashed: Smashed) -> Tensor | None:
        """Forward, loss and backward of a micro-batch; the device's gradient."""
        own = {device: smashed}
        try:
            loss, gradient = self._step.add(device, rows, smashed)
        except Exception as error:  # The network and the loss may be the user's own.
            raise self._failed(own, error) from error
        if not np.isfinite(loss):
            raise self._diverged(own, loss)
        return gradient

    @usual_kernels()
    def update(self, devices: Collection[str]) -> float:
        """Update the server side by all that these devices sent; the mean loss."""
        loss = self._step.finish(devices, self._learning_rate, self._training.clip)
        self._epoch += 1
        return loss

    def _failed(self, smashed: Mapping[str, Smashed], error: Exception) -> Exception:
        """Say what the server side cannot train on; SpoiltStepError if it is a device's fault."""
        self._require_innocent(smashed)
        shapes = ", ".join(f"{tuple(smashed[d].data.shape)} of {d}" for d in sorted(smashed))
        reason = str(error).partition("\n")[0] or type(error).__name__
        return StepFailedError(f"the server side cannot train on {shapes}: {reason}")

    def _diverged(self, smashed: Mapping[str, Smashed], loss: float) -> Exception:
        """Say that there is no finite loss; SpoiltStepError if it is a device's fault."""
        self._require_innocent(smashed)
        return DivergedError(
            f"the loss became {loss} in round {self._round}: training diverged; take "
            "a lower training.server_optimizer.learning_rate"
        )

    def _loss(
        self, smashed: Mapping[str, Smashed], rows: Rows | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the joined smashed data and the mean loss on it; `rows` of one device's batch."""
        sizes = {device: rows or len(smashed[device].data) for device in sorted(smashed)}
        data, y = _joined(smashed)
        inputs, labels = torch.from_numpy(data), torch.from_numpy(y)
        inputs.requires_grad_(bool(self._device_side.trainable))
        return inputs, self._training.loss(self._forward(inputs, sizes), labels)

    def _require_innocent(self, smashed: Mapping[str, Smashed]) -> None:
        """SpoiltStepError if it is some devices' fault that a step has no loss."""
        with torch.no_grad():
            found = culprits(smashed, lambda own: self._loss(own)[1].item())
        if found:
            raise SpoiltStepError(found)

    def _forward(self, inputs: torch.Tensor, sizes: Mapping[str, int | Rows]) -> torch.Tensor:
        keys = [(self._key(device), size) for device, size in sizes.items()]
        # Random layers that we do not know draw from torch's own generator.
        torch.default_generator.manual_seed(torch_seed(keys[0][0]))
        layers = self._server_side.layers
        set_dropout_keys(layers, keys)
        outputs: torch.Tensor = layers.train()(inputs)
        return outputs

    def _key(self, device: str) -> tuple[int, ...]:
        return step_key(
            Purpose.DROPOUT,
            seed=self._training.seed,
            device=device,
            round_=self._round,
            epoch=self._epoch,
        )


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _joined(smashed: Mapping[str, Smashed]) -> tuple[NDArray[np.float32], Tensor]:
    """Join smashed data and labels in device-id order.

    Axes of one value are left out of labels that differ in them: a job says how many numbers the
    label of a sample is, and may leave their shape to the devices.
    """
    each = [smashed[device] for device in sorted(smashed)]
    labels = [own.labels for own in each]
    if len({y.shape[1:] for y in labels}) > 1:
        labels = [y.reshape(len(y), *(size for size in y.shape[1:] if size > 1)) for y in labels]
    return np.concatenate([own.data for own in each]), np.concatenate(labels)
