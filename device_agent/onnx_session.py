"""ONNX Runtime, set for small devices."""

import hashlib
from collections.abc import Mapping
from threading import Lock
from weakref import WeakValueDictionary

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from runtime.errors import MalformedMessageError
from runtime.wire.device_graphs import GraphSpec

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
