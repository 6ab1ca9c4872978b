"""A device side without layers (cut 0): the samples themselves go to the server."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from device_agent.executor import DropoutKey
from runtime.errors import SettingsError
from runtime.wire.frames import Tensor, TensorSpec

Floats = NDArray[np.float32]


class EmptyExecutor:
    """Nothing to compute and nothing to train; see `device_agent.executor.Executor`."""

    def __init__(self, sample_shape: tuple[int, ...]) -> None:
        self._sample_shape = sample_shape

    def model_specs(self) -> tuple[TensorSpec, ...]:
        """No tensors."""
        return ()

    def smashed_spec(self, num_samples: int) -> TensorSpec:
        """The samples' own shape."""
        return TensorSpec("<f4", (num_samples, *self._sample_shape))

    def load(self, tensors: Sequence[Tensor]) -> None:
        """Take over a device-side model of no tensors."""

    def tensors(self) -> list[Tensor]:
        """No tensors."""
        return []

    def forward(self, x: Floats, *, dropout_key: DropoutKey) -> Floats:  # noqa: ARG002
        """The samples."""
        return x

    def backward(self, gradient: Floats, *, learning_rate: float) -> None:
        """Nothing to update."""

    def train(
        self,
        x: Floats,  # noqa: ARG002
        y: Tensor,  # noqa: ARG002
        *,
        dropout_key: DropoutKey,  # noqa: ARG002
        learning_rate: float,  # noqa: ARG002
    ) -> float:
        """Refused: without layers there is nothing to train."""
        raise SettingsError("there are no layers on the device to train; cut later")

    def predict(self, x: Floats) -> Floats:
        """The samples."""
        return x
