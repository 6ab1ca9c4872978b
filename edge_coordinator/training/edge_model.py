"""The whole network on the edge server, cut anew for each cluster's turn.

Between turns the server holds every layer with its optimiser state, so a change of the cut moves
layers between two halves of one network and nothing else.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
import torch

from edge_coordinator.training.aggregation import Aggregate
from edge_coordinator.training.algorithm import (
    DivergedError,
    ServerStep,
    Smashed,
    SpoiltStepError,
    StepFailedError,
)
from edge_coordinator.training.culprits import culprits
from runtime.datasets.samples import Samples
from runtime.errors import SettingsError
from runtime.models.dropout import seed_dropout, set_dropout_keys
from runtime.models.kernels import usual_kernels
from runtime.models.load import split
from runtime.models.losses import Loss
from runtime.models.sequence import Network, layers_of
from runtime.models.side import Side, empty_state
from runtime.seeding import Purpose, step_key, torch_seed
from runtime.wire.commands import OptimizerSpec
from runtime.wire.frames import Tensor, TensorSpec, specs_of

WEIGHTS = "weights/"
"""What the names of weights and buffers begin with in a snapshot."""
_EVALUATION_BATCH = 250
MOST_WORKERS = 4
"""Of an evaluation: each holds the activations of a batch."""


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy over some samples."""

    loss: float
    accuracy: float | None
    """Fraction right; None where the labels are no classes."""


@dataclass(frozen=True)
class Training:
    """How both sides of the network learn."""

    server_optimizer: OptimizerSpec
    device_optimizer: OptimizerSpec
    carry_state: bool
    aggregate: Aggregate
    loss: Loss
    seed: int


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
        return evaluate_layers(self.network, test, self.training.loss)

    def evaluate_smashed(self, cut: int, smashed: Mapping[str, Smashed]) -> Evaluation:
        """Evaluate the layers above the cut on what the devices' layers gave."""
        _, server_layers = split(self.network, cut)
        x = np.concatenate([smashed[device].data for device in sorted(smashed)])
        y = np.concatenate([smashed[device].labels for device in sorted(smashed)])
        return evaluate_layers(server_layers, Samples(x, y), self.training.loss)


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
        except (RuntimeError, ValueError, TypeError, IndexError, SettingsError) as error:
            self._require_innocent(smashed)
            shapes = ", ".join(f"{tuple(smashed[d].data.shape)} of {d}" for d in devices)
            reason = str(error).partition("\n")[0]
            raise StepFailedError(f"the server side cannot train on {shapes}: {reason}") from error
        if not torch.isfinite(loss):
            self._require_innocent(smashed)
            raise DivergedError(
                f"the loss became {loss.item()} in round {self._round}: training diverged; take "
                "a lower training.server_optimizer.learning_rate"
            )
        torch.autograd.backward(loss)
        self._server_side.step(self._learning_rate)
        self._epoch += 1
        if inputs.grad is None:
            return ServerStep(loss.item(), {})
        parts = torch.split(inputs.grad, [len(smashed[device].data) for device in devices])
        return ServerStep(
            loss.item(), {device: part.numpy() for device, part in zip(devices, parts, strict=True)}
        )

    def _loss(self, smashed: Mapping[str, Smashed]) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the joined smashed data and the mean loss on it."""
        devices = sorted(smashed)
        sizes = {device: len(smashed[device].data) for device in devices}
        inputs = torch.from_numpy(np.concatenate([smashed[device].data for device in devices]))
        labels = torch.from_numpy(np.concatenate([smashed[device].labels for device in devices]))
        inputs.requires_grad_(bool(self._device_side.layers.state_dict()))
        return inputs, self._training.loss(self._forward(inputs, sizes), labels)

    def _require_innocent(self, smashed: Mapping[str, Smashed]) -> None:
        """SpoiltStepError if it is some devices' fault that a step has no loss."""
        with torch.no_grad():
            found = culprits(smashed, lambda own: self._loss(own)[1].item())
        if found:
            raise SpoiltStepError(found)

    def _forward(self, inputs: torch.Tensor, sizes: Mapping[str, int]) -> torch.Tensor:
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


def is_classification(outputs: torch.Tensor, labels: torch.Tensor) -> bool:
    """Whether the largest of a sample's outputs names its class: [n, class] and whole [n]."""
    whole = not labels.is_floating_point()
    return whole and outputs.dim() == 2 and outputs.shape[1] > 1 and labels.dim() == 1


def evaluate_layers(
    layers: torch.nn.Module, test: Samples, loss: Loss, *, most_workers: int = MOST_WORKERS
) -> Evaluation:
    """Loss and accuracy of some layers in evaluation mode, several batches at a time.

    Whoever waits for it uses no processor meanwhile, so all are taken, up to `most_workers`. Each
    batch is one thread's, and sums are in the order of the batches: so the result is the same on
    any number of processors.
    """
    layers.eval()
    starts = range(0, len(test), _EVALUATION_BATCH)
    copies = _copies(layers, min(most_workers, os.cpu_count() or 1, len(starts)))
    free: SimpleQueue[torch.nn.Module] = SimpleQueue()
    for each in copies:
        free.put(each)

    def evaluate_at(start: int) -> tuple[float, int | None]:
        own = free.get()
        batch = slice(start, start + _EVALUATION_BATCH)
        try:
            return _evaluate_batch(own, test.x_of(batch), test.y[batch], loss)
        finally:
            free.put(own)

    with ThreadPoolExecutor(len(copies), "evaluate", torch.set_num_threads, (1,)) as pool:
        losses, rights = zip(*pool.map(evaluate_at, starts), strict=True)
    num_right = sum(right for right in rights if right is not None)
    return Evaluation(sum(losses) / len(test), None if None in rights else num_right / len(test))


@usual_kernels()
def _evaluate_batch(
    layers: torch.nn.Module, x: np.ndarray, y: Tensor, loss: Loss
) -> tuple[float, int | None]:
    """Sum of the loss, and how many are right; None where the labels are no classes."""
    with torch.no_grad():
        labels = torch.from_numpy(y)
        outputs = layers(torch.from_numpy(x))
        total_loss = loss(outputs, labels).item() * len(labels)
        if not is_classification(outputs, labels):
            return total_loss, None
        return total_loss, int((outputs.argmax(1) == labels).sum())


def _copies(layers: torch.nn.Module, count: int) -> list[torch.nn.Module]:
    """The layers and copies that share their tensors: a user's own may keep notes of a forward."""
    tensors = {id(tensor): tensor for tensor in (*layers.parameters(), *layers.buffers())}
    try:
        return [layers, *(copy.deepcopy(layers, dict(tensors)) for _ in range(count - 1))]
    except (RuntimeError, TypeError):  # Such notes can make layers that cannot be copied.
        return [layers]
