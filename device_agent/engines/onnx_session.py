"""ONNX Runtime, set for small devices, and the arrays that its graphs take."""

import hashlib
from collections.abc import Mapping, Sequence
from threading import Lock
from weakref import WeakValueDictionary

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from device_agent.engines.numpy_training import Slots, empty_slots, update
from runtime.errors import MalformedMessageError
from runtime.wire.commands import OptimizerSpec
from runtime.wire.device_graphs import DeviceManifest, GraphSpec
from runtime.wire.frames import Tensor, TensorSpec, specs_of

Values = dict[str, ort.OrtValue]

_ERRORS_ONLY = 3


_opened: WeakValueDictionary[tuple[bytes, int], ort.InferenceSession] = WeakValueDictionary()
"""By the digest of a graph and its threads: those that some device of this process has open."""
_opening = Lock()


class Session:
    """One graph, loaded. Gives its outputs under their names.

    Weights are inputs and nothing of a run stays, so devices of one process share what is loaded
    of equal graphs, also at the same time and from several threads; the last one lets it go.
    """

    def __init__(self, payload: bytes, spec: GraphSpec, *, num_threads: int) -> None:
        self._session = _load(payload, num_threads=num_threads)
        self._inputs = [value.name for value in spec.inputs]
        self._outputs = [value.name for value in spec.outputs]

    def run(self, values: Mapping[str, ort.OrtValue]) -> Values:
        """Run on the inputs among these values; nothing is copied on the way in or out."""
        inputs = {name: values[name] for name in self._inputs}
        return dict(
            zip(
                self._outputs, self._session.run_with_ort_values(self._outputs, inputs), strict=True
            )
        )


def _load(payload: bytes, *, num_threads: int) -> ort.InferenceSession:
    key = (hashlib.sha256(payload).digest(), num_threads)
    with _opening:  # Else devices that begin together would each load the same.
        session = _opened.get(key)
        if session is None:
            try:
                session = ort.InferenceSession(
                    payload, _options(num_threads), providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # its errors have no common class but this one
                raise MalformedMessageError(f"not a graph that runs: {error}") from error
            _opened[key] = session
        return session


def _options(num_threads: int) -> ort.SessionOptions:
    """Settings chosen by measurement on steps of training; see docs/decisions.

    A thread that spins burns a core of a small device between steps. Memory planned ahead (the
    pattern) is no faster here, and at its peak 2 to 25 MB larger than the arena alone.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def to_value(array: NDArray[np.generic]) -> ort.OrtValue:
    """Lend a contiguous array to ONNX Runtime: the value is the array, not a copy."""
    return ort.OrtValue.ortvalue_from_numpy(array)


class OnnxWeights:
    """State of one executor. `values` are the same memory, as ONNX Runtime takes it."""

    def __init__(
        self, manifest: DeviceManifest, optimizer: OptimizerSpec, *, carry_state: bool
    ) -> None:
        frozen = frozenset(manifest.frozen or ())
        self._specs = [spec for spec in manifest.state if spec.name not in frozen]
        self._frozen = [spec for spec in manifest.state if spec.name in frozen]
        self._optimizer, self._carry_state = optimizer, carry_state
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
        """Copies of what may change, in `state_dict` order, then of the carried slots."""
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

    def frozen(self) -> list[Tensor]:
        """Parameters that do not learn, in `state_dict` order; lent, not copied."""
        return [self._state[spec.name] for spec in self._frozen]

    def load_frozen(self, tensors: Sequence[Tensor]) -> None:
        """Take over what `frozen` gave."""
        for spec, tensor in zip(self._frozen, tensors, strict=True):
            self.replace(spec.name, np.array(tensor, dtype=spec.dtype, order="C"))

    def replace(self, name: str, tensor: Tensor) -> None:
        """Set a tensor to a new array, which is kept; values handed out before stay."""
        self._state[name] = tensor
        self.values[name] = to_value(tensor)

    def update(self, name: str, gradient: NDArray[np.float32], *, learning_rate: float) -> None:
        """Step the optimiser on one parameter, in place."""
        parameter = self._state[name]
        slots = self._slots[name]
        spec = self._optimizer.of_parameter(name, parameter.ndim)
        update(parameter, gradient, slots, spec, learning_rate=learning_rate)  # type: ignore[arg-type]

    def _all(self) -> list[Tensor]:
        tensors = [self._state[spec.name] for spec in self._specs]
        if self._carry_state:
            tensors += [slot for name in self._trained for slot in self._slots[name].values()]
        return tensors

    def _forget_slots(self) -> None:
        for name in self._trained:
            self._slots[name] = empty_slots(self._state[name], self._optimizer)  # type: ignore[arg-type]
