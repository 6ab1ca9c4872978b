"""What an engine does: forward, backward and update of the device side of a network."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from device_agent.engines.graph_store import GraphStore
from device_agent.engines.measurement import Measurement
from runtime.errors import SettingsError
from runtime.wire.commands import Clip
from runtime.wire.frames import Tensor, TensorSpec
from runtime.wire.measures import LayerWork
from runtime.wire.micro_batches import Rows

DropoutKey = tuple[int, ...]

Floats = NDArray[np.float32]


class Executor(Protocol):
    """The device side of a network at one cut. Arrays are float32 and [sample, ...]."""

    def model_specs(self) -> tuple[TensorSpec, ...]:
        """Tensors that `load` takes and `tensors` gives."""
        ...

    @property
    def learns(self) -> bool:
        """Whether any of its parameters does: else no gradient comes back."""
        ...

    def frozen(self) -> list[Tensor]:
        """Parameters that do not learn, which `load` does not take; lent, not copied."""
        ...

    def load_frozen(self, tensors: Sequence[Tensor]) -> None:
        """Take over what `frozen` gives."""
        ...

    def smashed_spec(self, num_samples: int) -> TensorSpec:
        """What `forward` gives for so many samples."""
        ...

    def load(self, tensors: Sequence[Tensor]) -> None:
        """Take over learning parameters and buffers in `state_dict` order, then their slots."""
        ...

    def tensors(self) -> list[Tensor]:
        """Copies of what `load` takes."""
        ...

    def forward(
        self, x: NDArray[np.float32], *, dropout_key: DropoutKey, rows: Rows | None = None
    ) -> NDArray[np.float32]:
        """Smashed data of a mini-batch, or of its micro-batch `rows`; keeps what `backward` needs.

        The first micro-batch forgets what was kept before.
        """
        ...

    def backward(
        self,
        gradient: NDArray[np.float32],
        *,
        learning_rate: float,
        clip: Clip | None = None,
        is_last: bool = True,
    ) -> None:
        """Gradients of the parameters, of one forward after another; the last brings the update.

        They are summed in the order of the micro-batches.
        """
        ...

    def train(
        self,
        x: NDArray[np.float32],
        y: Tensor,
        *,
        dropout_key: DropoutKey,
        learning_rate: float,
        clip: Clip | None = None,
    ) -> float:
        """Forward, loss, backward and update of a whole network; the loss."""
        ...

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Forward in evaluation mode."""
        ...


class Engine(Protocol):
    """A network of a job on this device.

    `graphs` is where an engine finds the graphs that the coordinator sends; None for an engine
    that builds the network itself.
    """

    @property
    def graphs(self) -> GraphStore | None:
        """Where the graphs are to be put before `open`."""
        ...

    def check(self, sample_shape: tuple[int, ...]) -> None:
        """SettingsError unless such samples fit the network."""
        ...

    def cut_of(self, layer: str) -> int:
        """Count the layers up to this one, named or numbered; SettingsError if it is none."""
        ...

    def use_threads(self, num_threads: int) -> None:
        """Compute with so many from the next `open` on; called in the thread that computes."""
        ...

    def open(self, cut: int) -> Executor:
        """Cut the network after so many layers."""
        ...

    def check_batch(self, cut: int, num_samples: int) -> None:
        """SettingsError if a step of so many samples takes more than it may here."""
        ...

    def measure_layers(
        self, batch: NDArray[np.float32], *, budget_s: float, clock: Callable[[], float]
    ) -> Measurement[Any] | None:
        """Time each layer in training; the network stays as it is.

        None from an engine that has nothing to time before it has graphs. The seconds are those
        of `clock`: of the wall, or of the thread's processor time.
        """
        ...

    def measure_cut(
        self,
        cut: int,
        layers: Sequence[LayerWork],
        batch: NDArray[np.float32],
        *,
        digest: str,
        budget_s: float,
        clock: Callable[[], float],
    ) -> Measurement[Any]:
        """Time the device side at one cut; it comes to all layers, by all cuts so far.

        `digest` is that of its graphs, which have to be in use by the time it is taken.
        """
        ...


class EmptyExecutor:
    """Nothing to compute and nothing to train; see `device_agent.engines.engine.Executor`."""

    def __init__(self, sample_shape: tuple[int, ...]) -> None:
        self._sample_shape = sample_shape

    def model_specs(self) -> tuple[TensorSpec, ...]:
        """No tensors."""
        return ()

    learns = False

    def frozen(self) -> list[Tensor]:
        """No tensors."""
        return []

    def load_frozen(self, tensors: Sequence[Tensor]) -> None:
        """Nothing to take over."""

    def smashed_spec(self, num_samples: int) -> TensorSpec:
        """The samples' own shape."""
        return TensorSpec("<f4", (num_samples, *self._sample_shape))

    def load(self, tensors: Sequence[Tensor]) -> None:
        """Take over a device-side model of no tensors."""

    def tensors(self) -> list[Tensor]:
        """No tensors."""
        return []

    def forward(
        self,
        x: Floats,
        *,
        dropout_key: DropoutKey,  # noqa: ARG002
        rows: Rows | None = None,  # noqa: ARG002
    ) -> Floats:
        """The samples."""
        return x

    def backward(
        self,
        gradient: Floats,
        *,
        learning_rate: float,
        clip: Clip | None = None,
        is_last: bool = True,
    ) -> None:
        """Nothing to update."""

    def train(
        self,
        x: Floats,  # noqa: ARG002
        y: Tensor,  # noqa: ARG002
        *,
        dropout_key: DropoutKey,  # noqa: ARG002
        learning_rate: float,  # noqa: ARG002
        clip: Clip | None = None,  # noqa: ARG002
    ) -> float:
        """Refused: without layers there is nothing to train."""
        raise SettingsError("there are no layers on the device to train; cut later")

    def predict(self, x: Floats) -> Floats:
        """The samples."""
        return x
