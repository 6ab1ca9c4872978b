"""Parameters, buffers and optimiser slots of the device side, as numpy arrays."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from device_agent.numpy_optimizer import Slots, empty_slots, update
from device_agent.onnx_session import Values, to_value
from runtime.wire.commands import OptimizerSpec
from runtime.wire.device_graphs import DeviceManifest
from runtime.wire.frames import Tensor, TensorSpec, specs_of


class OnnxWeights:
    """State of one executor. `values` are the same memory, as ONNX Runtime takes it."""

    def __init__(
        self, manifest: DeviceManifest, optimizer: OptimizerSpec, *, carry_state: bool
    ) -> None:
        self._specs, self._optimizer, self._carry_state = manifest.state, optimizer, carry_state
        self._trained = [spec.name for spec in manifest.state if spec.trained]
        self._state: dict[str, Tensor] = {}
        self._slots: dict[str, Slots] = {}
        self.values: Values = {}
        for spec in manifest.state:
            self.replace(spec.name, np.zeros(spec.shape, spec.dtype))
        self._forget_slots()

    def specs(self) -> tuple[TensorSpec, ...]:
        """Tensors that `load` takes and `tensors` gives."""
        return specs_of(self._all())

    def tensors(self) -> list[Tensor]:
        """Copies of parameters and buffers in `state_dict` order, then of the carried slots."""
        return [np.array(tensor) for tensor in self._all()]

    def load(self, tensors: Sequence[Tensor]) -> None:
        """Take over what `tensors` gave; slots that are not carried start anew."""
        num_state = len(self._specs)
        for spec, tensor in zip(self._specs, tensors[:num_state], strict=True):
            self.replace(spec.name, np.array(tensor, dtype=spec.dtype, order="C"))
        self._forget_slots()
        if self._carry_state:
            carried = self._all()[num_state:]
            for slot, tensor in zip(carried, tensors[num_state:], strict=True):
                slot[...] = tensor

    def replace(self, name: str, tensor: Tensor) -> None:
        """Set a tensor to a new array, which is kept; values handed out before stay."""
        self._state[name] = tensor
        self.values[name] = to_value(tensor)

    def update(self, name: str, gradient: NDArray[np.float32], *, learning_rate: float) -> None:
        """Step the optimiser on one parameter, in place."""
        parameter = self._state[name]
        slots = self._slots[name]
        update(parameter, gradient, slots, self._optimizer, learning_rate=learning_rate)  # type: ignore[arg-type]

    def _all(self) -> list[Tensor]:
        tensors = [self._state[spec.name] for spec in self._specs]
        if self._carry_state:
            tensors += [slot for name in self._trained for slot in self._slots[name].values()]
        return tensors

    def _forget_slots(self) -> None:
        for name in self._trained:
            self._slots[name] = empty_slots(self._state[name], self._optimizer)  # type: ignore[arg-type]
