"""The weights of a run's best round so far, kept so that a crash at any moment leaves them.

The checkpoint of that round has them already. So nothing is written twice, however large a network
is: once the checkpoint of a best round is on the disk it gets a second name, and the checkpoint of
the next round replaces only the first. A run that dies between the two steps has the best round in
its checkpoint, and gives it the second name when it is resumed.
"""

import os
import shutil
from pathlib import Path

from edge_coordinator.run.checkpoint import NAME, read_tensors
from edge_coordinator.run.whole_file import sync_folder
from edge_coordinator.training.edge_model import WEIGHTS
from runtime.errors import SettingsError, StorageError
from runtime.models.sequence import Network

BEST_NAME = "checkpoint-best.safetensors"


def keep_checkpoint(directory: Path) -> None:
    """Keep the checkpoint as the best, whatever is written after it."""
    keep_checkpoint_as(directory, BEST_NAME)


def keep_checkpoint_as(directory: Path, name: str) -> None:
    """Give the checkpoint a second name."""
    draft = directory / f"{name}.new"
    try:
        draft.unlink(missing_ok=True)
        try:
            os.link(directory / NAME, draft)
        except OSError:  # Some file systems have no second names.
            shutil.copyfile(directory / NAME, draft)
            _sync(draft)
        draft.replace(directory / name)
        sync_folder(directory)
    except OSError as error:
        raise StorageError(
            f"{directory / name} cannot be written: {error.strerror}; the checkpoint is "
            f"whole, go on from it with --resume {directory}"
        ) from error


def best_round(directory: Path) -> int | None:
    """Which round's weights are kept; None if there are none that can be read."""
    try:
        metadata, _ = read_tensors(directory / BEST_NAME, below="none")
        return int(metadata["round"])
    except (SettingsError, KeyError, ValueError):
        return None


def load_best(directory: Path, network: Network) -> None:
    """Put the kept weights into a network; SettingsError if they cannot be read."""
    path = directory / BEST_NAME
    _, tensors = read_tensors(path, below=WEIGHTS)
    try:
        network.load_state_dict({n.removeprefix(WEIGHTS): t for n, t in tensors.items()})
    except RuntimeError as error:
        raise SettingsError(f"{path} is of another network than the job's: {error}") from error


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
