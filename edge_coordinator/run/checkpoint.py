"""Checkpoints at round boundaries: all that a run needs to go on to the same weights.

Random numbers have addresses and need no state; what is left is every layer's weights, their
optimiser state, and how far the run has come.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from edge_coordinator.job.standing import BEGINNING, Standing
from edge_coordinator.run.whole_file import replace_file
from edge_coordinator.training.edge_model import EdgeModel
from runtime.errors import SettingsError, StorageError

NAME = "checkpoint.safetensors"
_VERSION = "1"


@dataclass(frozen=True)
class Reached:
    """How far a run has come."""

    round: int
    elapsed_s: float
    memory: str = ""
    """What had been learned of the devices, as `run_memory` writes it."""
    standing: Standing = BEGINNING
    """What the evaluations said so far; follows from the rounds, and so is in no checkpoint."""


START = Reached(0, 0.0)


def save_checkpoint(directory: Path, model: EdgeModel, reached: Reached) -> None:
    """Replace the run's checkpoint as a whole: a crash or a full disk leaves the one before."""
    metadata = {
        "version": _VERSION,
        "round": str(reached.round),
        "elapsed_s": repr(reached.elapsed_s),
        "memory": reached.memory,
    }
    try:
        content = save(model.snapshot(), metadata)
    except SafetensorError as error:
        raise StorageError(
            f"cannot write a checkpoint to {directory}, with what was learned of the devices it "
            f"would be too large: {error}"
        ) from error
    try:
        replace_file(directory / NAME, content)
    except OSError as error:
        raise StorageError(
            f"cannot write a checkpoint to {directory}: {error.strerror}; the one before is whole, "
            f"go on from it with --resume {directory}"
        ) from error


def load_checkpoint(directory: Path, model: EdgeModel, *, name: str = NAME) -> Reached:
    """Put a run's checkpoint into the model; where the run ended.

    A run that ended before its first round was done goes on from the beginning.
    """
    path = directory / name
    if not path.exists():
        return START
    metadata, tensors = read_tensors(path, below="")
    if metadata.get("version") != _VERSION:
        raise SettingsError(f"{path} is of version {metadata.get('version')}, not {_VERSION}")
    _restore(model, tensors, path)
    return Reached(int(metadata["round"]), float(metadata["elapsed_s"]), metadata.get("memory", ""))


def read_tensors(path: Path, *, below: str) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Read a checkpoint's metadata, and its tensors whose names begin with `below`."""
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(below)]  # noqa: SIM118
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise SettingsError(f"{path} is not a checkpoint: {error}") from error


def _restore(model: EdgeModel, tensors: dict[str, torch.Tensor], path: Path) -> None:
    try:
        model.restore(tensors)
    except (KeyError, RuntimeError) as error:
        raise SettingsError(f"{path} is of another network than the job's: {error}") from error


class SavedProgress(Protocol):
    """Where a run began or goes on, and where it is written down how far it has come."""

    @property
    def reached(self) -> Reached:
        """The last round that is done."""
        ...

    def save(self, model: EdgeModel, reached: Reached) -> None:
        """Write down that a round is done."""
        ...

    def return_to_sound(self, model: EdgeModel) -> int | None:
        """Put an older checkpoint, of a sound round, into the model; its round, if there is one."""
        ...
