"""The server during one cluster's turn: its side of the cut network learns, step after step."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from edge_coordinator.training.accumulated_step import AccumulatedStep, Inputs
from edge_coordinator.training.aggregated_step import AggregatedStep
from edge_coordinator.training.aggregation import Aggregate
from edge_coordinator.training.algorithm import (
    ServerStep,
    Smashed,
    SpoiltStepError,
    StepFailedError,
    joined,
    joined_labels,
)
from edge_coordinator.training.computing.accelerator import PROCESSOR, Accelerator, LossScale
from edge_coordinator.training.computing.compiled import Compiled, ServerSide
from edge_coordinator.training.culprits import culprits
from edge_coordinator.training.evaluation import TASKS_OWN
from edge_coordinator.training.metrics import Metric
from edge_coordinator.training.middle_layers import DeviceSideModel, Sizes
from runtime.errors import DivergedError
from runtime.models.dropout import set_dropout_keys
from runtime.models.kernels import usual_kernels
from runtime.models.losses import Loss
from runtime.seeding import Purpose, step_key, torch_seed
from runtime.seeding.torch_generator import seed_generators
from runtime.wire.commands import Clip, OptimizerSpec
from runtime.wire.frames import Tensor, TensorSpec, specs_of
from runtime.wire.micro_batches import Rows


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
    accelerator: Accelerator = PROCESSOR
    """Where the server side computes."""


class Turn:
    """The server during one cluster's turn; what it does, in `algorithm.Edge`'s words."""

    def __init__(
        self,
        model: DeviceSideModel,
        server_side: ServerSide,
        training: Training,
        *,
        round_: int,
        learning_rate: float,
        aggregated: int,
    ) -> None:
        """`model` is the devices'.

        `aggregated` samples of each device, the first, are given one gradient for all.
        """
        self._aggregated = aggregated if model.learns else 0
        self._accelerator = training.accelerator
        self._scale = LossScale(training.accelerator)
        self._model = model
        self.server_side = server_side
        """The layers that learn here, with their optimiser state."""
        self._training = training
        self._round = round_
        self._learning_rate = learning_rate
        self._epoch = 0

    def device_side(self) -> list[Tensor]:
        """Copies of the device-side model's tensors, carried optimiser slots at the end."""
        return self._model.tensors()

    def device_specs(self) -> tuple[TensorSpec, ...]:
        """Shapes of `device_side`."""
        return specs_of(self.device_side())

    def frozen(self) -> list[Tensor]:
        """Parameters of the device side that do not learn, which are not in `device_side`."""
        return self._model.frozen()

    def device_parts(self) -> list[str]:
        """What each of `device_side` is."""
        return self._model.parts()

    def aggregate(
        self, weights: Mapping[str, Sequence[Tensor]], sample_counts: Mapping[str, int]
    ) -> None:
        """Take over what becomes of the devices' models."""
        self._model.aggregate(weights, sample_counts, by=self._training.aggregate)

    @usual_kernels()
    def step(self, smashed: Mapping[str, Smashed]) -> ServerStep:
        """Forward, mean loss over the cluster, backward, update; a gradient for each device."""
        if self._aggregated and len(smashed) > 1:
            return self._aggregated_step(smashed)
        step = self._whole_step(smashed)
        if not self._aggregated:
            return step
        # The others of its cluster are lost: it is told in the same frames.
        ((device, gradient),) = step.gradients.items()
        first, rest = np.split(gradient, [self._aggregated])
        return replace(step, gradients={device: rest}, aggregated=first)

    def _aggregated_step(self, smashed: Mapping[str, Smashed]) -> ServerStep:
        step = AggregatedStep(
            smashed, self._aggregated, forward=self._forward, loss=self._mean_loss
        )
        try:
            loss = step.loss(*map(self._accelerator.put, joined(smashed)))
        except Exception as error:  # The network and the loss may be the user's own.
            raise self._failed(smashed, error) from error
        if not torch.isfinite(loss):
            raise self._diverged(smashed, loss.item())
        learning = self.server_side.trainable
        try:
            step.backward(lambda backed, own: self._scale.backward(backed, [*own, *learning]))
        except RuntimeError as error:
            raise self._failed(smashed, error) from error
        fetched = [self._accelerator.begin_fetch(each) for each in (step.for_all, step.for_each)]
        self.server_side.step(self._learning_rate, self._training.clip)
        self._epoch += 1
        for_all, for_each = (fetch() for fetch in fetched)
        gradients = zip(sorted(smashed), np.split(for_each, step.ends), strict=True)
        return ServerStep(loss.item(), dict(gradients), for_all)

    def _whole_step(self, smashed: Mapping[str, Smashed]) -> ServerStep:
        try:
            inputs, loss = self._loss(smashed)
        except Exception as error:  # The network and the loss may be the user's own.
            raise self._failed(smashed, error) from error
        if not torch.isfinite(loss):
            raise self._diverged(smashed, loss.item())
        try:
            self._backward(inputs, loss)
        except RuntimeError as error:
            raise self._failed(smashed, error) from error
        begin_fetch = self._accelerator.begin_fetch
        fetched = {
            cut: begin_fetch(each.grad) for cut, each in inputs.items() if each.grad is not None
        }
        self.server_side.step(self._learning_rate, self._training.clip)
        self._model.step(smashed, is_mean_of_present=True)
        self._epoch += 1
        gradients: dict[str, Tensor] = {}
        for cut, devices in self._model.by_cut(smashed).items():
            if cut in fetched:
                ends = np.cumsum([len(smashed[device].data) for device in devices])[:-1]
                parts = np.split(fetched[cut](), ends)
                gradients |= zip(devices, parts, strict=True)
        return ServerStep(loss.item(), gradients)

    def _backward(self, inputs: Inputs, loss: torch.Tensor) -> None:
        """Go back to the inputs, where these want it, and to what learns."""
        leaves = [each for each in inputs.values() if each.requires_grad]
        learning = [*self.server_side.trainable, *self._model.trainable_here]
        self._scale.backward(loss, [*leaves, *learning])

    def begin(self, batch_sizes: Mapping[str, int]) -> None:
        """Begin a step that comes in micro-batches, of so many samples of each device."""
        self._step = AccumulatedStep(
            self.server_side,
            batch_sizes,
            self._loss,
            self._backward,
            begin_fetch=self._accelerator.begin_fetch,
            middle=self._model.trainable_here,
        )

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
    def add_together(self, parts: Mapping[str, tuple[Rows, Smashed]]) -> Tensor | None:
        """Forward and loss of the same micro-batch of several devices, backward once for all."""
        if not self._aggregated or len(parts) == 1:  # Nothing learns there, or others are lost.
            each = [self.add(device, rows, own) for device, (rows, own) in sorted(parts.items())]
            return each[0]
        smashed = {device: own for device, (_, own) in parts.items()}
        rows = {device: own for device, (own, _) in sorted(parts.items())}
        count = len(next(iter(rows.values())))
        step = AggregatedStep(
            smashed, count, forward=self._forward, loss=self._mean_loss, rows=rows
        )
        try:
            loss, gradient = self._step.add_together(
                step, *map(self._accelerator.put, joined(smashed))
            )
        except Exception as error:  # The network and the loss may be the user's own.
            raise self._failed(smashed, error) from error
        if not np.isfinite(loss):
            raise self._diverged(smashed, loss)
        return gradient

    @usual_kernels()
    def update(self, devices: Collection[str]) -> float:
        """Update the server side by all that these devices sent; the mean loss."""
        loss = self._step.finish(devices, self._learning_rate, self._training.clip)
        self._model.step(devices, is_mean_of_present=False)
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
    ) -> tuple[Inputs, torch.Tensor]:
        """Give the joined smashed data and the mean loss on it; `rows` of one device's batch."""
        sizes = {device: rows or len(smashed[device].data) for device in sorted(smashed)}
        labels = self._accelerator.put(joined_labels(smashed))
        inputs = {
            cut: self._accelerator.put(np.concatenate([smashed[d].data for d in devices]))
            for cut, devices in self._model.by_cut(smashed).items()
        }
        for cut, each in inputs.items():
            each.requires_grad_(self._model.learns_below(cut))
        entered = self._model.lifted(inputs, sizes, self._run_layers)
        return inputs, self._mean_loss(self._forward(entered, sizes), labels)

    def _mean_loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with self._accelerator.computing():
            return self._training.loss(outputs, labels)

    def _require_innocent(self, smashed: Mapping[str, Smashed]) -> None:
        """SpoiltStepError if it is some devices' fault that a step has no loss."""
        with torch.no_grad():
            found = culprits(smashed, lambda own: self._loss(own)[1].item())
        if found:
            raise SpoiltStepError(found)

    def _forward(self, inputs: torch.Tensor, sizes: Sizes) -> torch.Tensor:
        side = self.server_side
        alone = partial(self._run_layers, side.layers, sizes=sizes, by=side.compiled)
        if side.shared is None:
            return alone(inputs)
        slices = [(self._key(device), size) for device, size in sizes.items()]
        return side.shared.run(side, inputs, slices, alone=alone, scale=self._scale)

    def _run_layers(
        self, layers: nn.Module, inputs: torch.Tensor, sizes: Sizes, by: Compiled | None = None
    ) -> torch.Tensor:
        keys = [(self._key(device), size) for device, size in sizes.items()]
        # Random layers that we do not know draw from torch's own generator.
        seed_generators(torch_seed(keys[0][0]))
        set_dropout_keys(layers.train(), keys)
        with self._accelerator.computing(), self._accelerator.casting():
            outputs: torch.Tensor = (by or layers)(inputs)
        return outputs if self._accelerator.autocast is None else outputs.float()

    def _key(self, device: str) -> tuple[int, ...]:
        return step_key(
            Purpose.DROPOUT,
            seed=self._training.seed,
            device=device,
            round_=self._round,
            epoch=self._epoch,
        )
