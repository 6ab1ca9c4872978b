"""Weights & Biases, offline: below the run's directory, to be uploaded by `wandb sync`."""

from collections.abc import Mapping
from pathlib import Path

import wandb


class WandbTracker:
    """One offline run of the project `cpsl`."""

    def __init__(self, path: Path, settings: Mapping[str, object]) -> None:
        self._run = wandb.init(
            project="cpsl", name=path.name, dir=str(path), mode="offline", config=dict(settings)
        )

    def log(self, round_: int, figures: Mapping[str, float]) -> None:
        """Write the figures of a step."""
        self._run.log(dict(figures), step=round_)

    def close(self) -> None:
        """Write what is left."""
        self._run.finish(quiet=True)


def open_tracker(path: Path, settings: Mapping[str, object]) -> WandbTracker:
    """Begin a run."""
    return WandbTracker(path, settings)
