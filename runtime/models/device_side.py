"""The device side of a cut network on PyTorch, wherever it runs: on a device or in a simulation."""

import contextlib
import copy
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from runtime.errors import SettingsError
from runtime.models.dropout import seed_dropout, set_dropout_keys
from runtime.models.frozen import freeze
from runtime.models.given_gradient import with_gradient
from runtime.models.kernels import usual_kernels
from runtime.models.load import check_sample_shape, load_network, split, state_bytes
from runtime.models.losses import Loss, load_loss
from runtime.models.sequence import Network
from runtime.models.side import Side, empty_state
from runtime.models.skeleton import NoSkeletonError, build_skeleton, filled, is_skeleton
from runtime.plugins import import_factory
from runtime.seeding import Key, torch_seed
from runtime.seeding.torch_generator import seed_generators
from runtime.wire.commands import Assignment, Clip
from runtime.wire.frames import Tensor, TensorSpec
from runtime.wire.micro_batches import Rows

SKELETON_FROM_BYTES = 64_000_000
"""Of a network's state. On the meta device torch reckons by its compiler, which takes more memory
than a smaller network, and seconds to import."""


class DeviceNetwork:
    """A job's network, as a device holds it: of what it does not run, the shapes at most."""

    def __init__(
        self,
        assignment: Assignment,
        *,
        sample_shape: tuple[int, ...],
        skeleton_from_bytes: int = SKELETON_FROM_BYTES,
    ) -> None:
        """Build it, without numbers if its state has so many bytes or more."""
        self.assignment = assignment
        self.sample_shape = sample_shape
        if ":" in assignment.network:  # What its module computes for itself needs its numbers.
            import_factory(assignment.network, base_dir=Path())
        self._state_bytes = state_bytes(assignment.network, assignment.options) or 0
        self.network = self._built(as_skeleton=self._state_bytes >= skeleton_from_bytes)
        self._loss = load_loss(assignment.loss, options=assignment.loss_options)
        self._open_at: tuple[int, DeviceSide] | None = None

    def check(self, sample_shape: tuple[int, ...]) -> None:
        """SettingsError unless such samples fit the network.

        A layer that does not run here may be one that is never to run here: its shape will do.
        """
        try:
            check_sample_shape(self.network, sample_shape)
        except SettingsError:
            if is_skeleton(self.network):
                raise
            skeleton = self._built(as_skeleton=True)
            check_sample_shape(skeleton, sample_shape)
            self.network = skeleton

    def open(self, cut: int) -> "DeviceSide":
        """Cut the network after so many layers; again at the same cut, the same device side.

        It holds nothing that `load` does not replace, and most rounds keep the cut.
        """
        if self._open_at is None or self._open_at[0] != cut:
            self._open_at = None  # Its memory goes before more is taken.
            layers = self._filled(cut)
            self._open_at = (
                cut,
                self.side(split(self.network, cut)[0] if layers is None else layers),
            )
        return self._open_at[1]

    def copy(self, cut: int) -> Network:
        """Copy the layers below a cut, whatever is open; what they hold is nobody's weights."""
        layers = self._filled(cut)
        return copy.deepcopy(split(self.network, cut)[0]) if layers is None else layers

    def side(self, layers: Network) -> "DeviceSide":
        """Make some first layers a device side."""
        return DeviceSide(layers, self.assignment, sample_shape=self.sample_shape, loss=self._loss)

    def _built(self, *, as_skeleton: bool) -> Network:
        if as_skeleton:
            with contextlib.suppress(NoSkeletonError):
                return build_skeleton(self._build, self.sample_shape)
        return self._build()

    def _build(self) -> Network:
        assignment = self.assignment
        network = load_network(
            assignment.network,
            assignment.options,
            seed=assignment.seed,
            sample_shape=self.sample_shape,
        )
        seed_dropout(network)
        freeze(network, assignment.frozen or ())
        return network

    def _filled(self, cut: int) -> Network | None:
        """Layers with memory of their own; None if the whole network has its numbers."""
        if not is_skeleton(self.network):
            return None
        try:
            return filled(split(self.network, cut)[0], self.sample_shape)
        except NoSkeletonError:
            self.network = self._build()
            return None


class DeviceSide:
    """The device side at one cut: forward, backward and update. Arrays are [sample, ...]."""

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
        self._smashed: deque[torch.Tensor] = deque()
        """Of each micro-batch that has yet to go back."""

    def model_specs(self) -> tuple[TensorSpec, ...]:
        """Tensors that `load` takes and `tensors` gives."""
        return self._side.specs()

    @property
    def learns(self) -> bool:
        """Whether any of its parameters does: else no gradient comes back."""
        return bool(self._side.trainable)

    def frozen(self) -> list[Tensor]:
        """Parameters that do not learn, which `load` does not take; lent, not copied."""
        return self._side.frozen()

    def load_frozen(self, tensors: Sequence[Tensor]) -> None:
        """Take over what `frozen` gives."""
        self._side.load_frozen(tensors)

    def smashed_spec(self, num_samples: int) -> TensorSpec:
        """What `forward` gives for so many samples."""
        return TensorSpec("<f4", (num_samples, *self._smashed_shape))

    def load(self, tensors: Sequence[Tensor]) -> None:
        """Take over a device-side model."""
        self._side.load(tensors)

    def tensors(self) -> list[Tensor]:
        """Copies of what `load` takes."""
        return self._side.tensors()

    @usual_kernels()
    def forward(
        self, x: NDArray[np.float32], *, dropout_key: Key, rows: Rows | None = None
    ) -> NDArray[np.float32]:
        """Smashed data of a mini-batch, or of a micro-batch; keeps what `backward` needs."""
        rows = rows or Rows.all(len(x))
        if rows.start == 0:
            self._smashed.clear()
            self._side.forget_gradients()  # Of a step that was given up.
        self._smashed.append(self._run(x, dropout_key, rows))
        smashed: NDArray[np.float32] = self._smashed[-1].detach().numpy()
        return smashed

    @usual_kernels()
    def backward(
        self,
        gradient: NDArray[np.float32],
        *,
        learning_rate: float,
        clip: Clip | None = None,
        is_last: bool = True,
    ) -> None:
        """Gradients of the parameters, of one forward after another; the last brings the update."""
        smashed = self._smashed.popleft()
        if smashed.requires_grad:
            torch.autograd.backward(with_gradient(smashed, torch.from_numpy(gradient)))
        if is_last:
            self._side.step(learning_rate, clip)

    @usual_kernels()
    def train(
        self,
        x: NDArray[np.float32],
        y: Tensor,
        *,
        dropout_key: Key,
        learning_rate: float,
        clip: Clip | None = None,
    ) -> float:
        """Forward, loss, backward and update of a whole network; the loss."""
        outputs = self._run(x, dropout_key, Rows.all(len(x)))
        loss = self._loss(outputs, torch.from_numpy(np.asarray(y)))
        torch.autograd.backward(loss)
        self._side.step(learning_rate, clip)
        return loss.item()

    @usual_kernels()
    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Forward in evaluation mode."""
        with torch.no_grad():
            outputs: NDArray[np.float32] = self._layers.eval()(torch.from_numpy(x)).numpy()
        return outputs

    def _run(self, x: NDArray[np.float32], dropout_key: Key, rows: Rows) -> torch.Tensor:
        # Random layers that we do not know draw from torch's own generator.
        seed_generators(torch_seed(dropout_key))
        set_dropout_keys(self._layers, [(dropout_key, rows)])
        outputs: torch.Tensor = self._layers.train()(torch.from_numpy(x))
        return outputs
