"""One half of a trained network as an ONNX file, run by ONNX Runtime; nothing here knows torch.

A file says of itself which half of which model it is. Both halves of one cut have one `pair`, so
that a device's half is never put before the server's half of another model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from runtime.errors import SettingsError

Floats = NDArray[np.float32]
Shape = tuple[int, ...]
Side = Literal["device", "server"]
Task = Literal["classes", "values"]
SIDES: tuple[Side, ...] = ("device", "server")
VALUES: dict[Side, tuple[str, str]] = {
    "device": ("input", "smashed"),
    "server": ("smashed", "output"),
}
"""What each half takes and gives, as its graph names it."""
_ERRORS_ONLY = 3


def file_of(side: Side) -> str:
    """Name of the file that a half is in."""
    return f"{side}.onnx"


@dataclass(frozen=True)
class HalfInfo:
    """What a half says of itself."""

    network: str
    cut: str
    """The last layer of the device half; `input` where that has none."""
    pair: str
    """SHA-256 of the whole model's weights and the cut."""
    task: Task
    """What an output says: a score for each class, or values."""
    loss: str
    """By which the model was trained."""
    metric: str
    round: int
    classes: tuple[str, ...] = ()
    """In the order of the outputs, where they have names."""
    features: tuple[str, ...] = ()
    """Names of the columns of the inputs, where they have any."""

    def words(self, side: Side) -> dict[str, str]:
        """Give it as a file's metadata."""
        plain = ("network", "cut", "pair", "task", "loss", "metric")
        words = {name: str(getattr(self, name)) for name in plain}
        words |= {"half": side, "round": str(self.round)}
        lists = {"classes": self.classes, "features": self.features}
        return words | {name: json.dumps(names) for name, names in lists.items() if names}

    @classmethod
    def read(cls, words: Mapping[str, str], *, where: str, side: Side) -> "HalfInfo":
        """Read a file's metadata; SettingsError if it is no such half."""
        if words.get("half") != side:
            found = f"the {words['half']} half" if words.get("half") in SIDES else "no half"
            raise SettingsError(
                f"{where} is {found} of a model, and the {side} half is needed: "
                "cpsl infer RUNDIR --export FOLDER writes both"
            )
        try:
            return cls(
                network=words["network"],
                cut=words["cut"],
                pair=words["pair"],
                task="classes" if words["task"] == "classes" else "values",
                loss=words["loss"],
                metric=words["metric"],
                round=int(words["round"]),
                classes=tuple(map(str, json.loads(words.get("classes", "[]")))),
                features=tuple(map(str, json.loads(words.get("features", "[]")))),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise SettingsError(
                f"{where} does not say which half it is of which model; write it anew by "
                "cpsl infer RUNDIR --export FOLDER"
            ) from error


class Half(Protocol):
    """What computes one half, on whichever engine."""

    def run(self, x: Floats) -> Floats:
        """Compute a batch, [sample, ...]."""
        ...


class OnnxHalf:
    """One half, loaded. Arrays are float32 [sample, ...]."""

    def __init__(self, content: bytes, *, where: str, side: Side, num_threads: int = 0) -> None:
        """SettingsError if it is no such half; 0 threads are as many as there are cores."""
        self.where = where
        options = ort.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no common class but this one
            raise SettingsError(f"{where} is no graph that runs: {_first_line(error)}") from error
        words = self._session.get_modelmeta().custom_metadata_map
        self.info = HalfInfo.read(words, where=where, side=side)
        self._given, self._gives = VALUES[side]

    @classmethod
    def load(cls, path: Path, side: Side, *, num_threads: int = 0) -> "OnnxHalf":
        """Read a half from its file."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SettingsError(f"cannot read {path}: {error.strerror}") from error
        return cls(content, where=str(path), side=side, num_threads=num_threads)

    @property
    def sample_shape(self) -> Shape:
        """What it takes of one sample."""
        return self._shape(self._session.get_inputs()[0].shape)

    @property
    def output_shape(self) -> Shape:
        """What it gives of one sample, found out by one of zeros."""
        return self.run(np.zeros((1, *self.sample_shape), np.float32)).shape[1:]

    def run(self, x: Floats) -> Floats:
        """Compute a batch; SettingsError where it does not fit."""
        if x.shape[1:] != self.sample_shape:
            raise SettingsError(
                f"samples of shape {x.shape[1:]} do not fit {self.where}, which takes "
                f"{self.sample_shape}"
            )
        given = np.ascontiguousarray(x, np.float32)
        try:
            outputs: Floats = self._session.run([self._gives], {self._given: given})[0]
        except Exception as error:
            raise SettingsError(f"{self.where} cannot compute: {_first_line(error)}") from error
        return outputs

    def _shape(self, sizes: list[int | str | None]) -> Shape:
        shape = tuple(size for size in sizes[1:] if isinstance(size, int))
        if len(shape) != len(sizes) - 1:
            raise SettingsError(f"{self.where} takes samples of no stated shape: {sizes}")
        return shape


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
