"""What an engine does: forward, backward and update of the device side of a network."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from device_agent.graph_shelf import GraphShelf
from device_agent.measurement import Measurement
from runtime.distribution import install_hint
from runtime.errors import SettingsError
from runtime.offered import ONNX_ENGINE
from runtime.wire.commands import Assignment, LayerWork
from runtime.wire.frames import Tensor, TensorSpec

DropoutKey = tuple[int, ...]


class Executor(Protocol):
    """The device side of a network at one cut. Arrays are float32 and [sample, ...]."""

    def model_specs(self) -> tuple[TensorSpec, ...]:
        """Tensors that `load` takes and `tensors` gives."""
        ...

    def smashed_spec(self, num_samples: int) -> TensorSpec:
        """What `forward` gives for so many samples."""
        ...

    def load(self, tensors: Sequence[Tensor]) -> None:
        """Take over parameters and buffers in `state_dict` order, then optimiser slots."""
        ...

    def tensors(self) -> list[Tensor]:
        """Copies of what `load` takes."""
        ...

    def forward(self, x: NDArray[np.float32], *, dropout_key: DropoutKey) -> NDArray[np.float32]:
        """Smashed data of a mini-batch; keeps what `backward` needs."""
        ...

    def backward(self, gradient: NDArray[np.float32], *, learning_rate: float) -> None:
        """Gradients of the last forward's parameters, and the update."""
        ...

    def train(
        self, x: NDArray[np.float32], y: Tensor, *, dropout_key: DropoutKey, learning_rate: float
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
    def graphs(self) -> GraphShelf | None:
        """Where the graphs are to be put before `open`."""
        ...

    def check(self, sample_shape: tuple[int, ...]) -> None:
        """SettingsError unless such samples fit the network."""
        ...

    def open(self, cut: int) -> Executor:
        """Cut the network after so many layers."""
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


def open_engine(
    name: str,
    assignment: Assignment,
    *,
    sample_shape: tuple[int, ...],
    graphs: GraphShelf | None = None,
    num_threads: int = 1,
) -> Engine:
    """Make the network of a job with the named engine.

    `graphs` and `num_threads` are for onnxruntime: the graphs of earlier jobs, and the threads
    of a session. Torch has its threads from its own setting.
    """
    if name == ONNX_ENGINE:
        from device_agent.onnx_engine import OnnxEngine  # noqa: PLC0415

        shelf = GraphShelf() if graphs is None else graphs
        return OnnxEngine(
            assignment, sample_shape=sample_shape, graphs=shelf, num_threads=num_threads
        )
    if name == "torch":
        try:
            from device_agent.torch_engine import TorchEngine  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"the torch engine needs {error.name}: {install_hint('torch')}"
            ) from error
        return TorchEngine(assignment, sample_shape=sample_shape)
    raise SettingsError(f"no engine named {name!r}; there are torch and {ONNX_ENGINE}")
