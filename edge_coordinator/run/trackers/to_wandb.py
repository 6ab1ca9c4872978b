"""Weights & Biases, offline: below the run's directory, to be uploaded by `wandb sync`."""

from collections.abc import Mapping
from pathlib import Path

import wandb


class WandbTracker:
    """One offline run of the project `cpsl`."""

    def __init__(self, path: Path, settings: Mapping[str, object]) -> None:
        self._run = wandb.init(
            project="cpsl",
            name=path.name,
            dir=str(path),
            mode="offline",
            config=dict(settings),
            # The terminal is the run's own; its output is kept elsewhere.
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, round_: int, figures: Mapping[str, float]) -> None:
        """Write the figures of a step."""
        self._run.log(dict(figures), step=round_)

    def close(self, *, is_whole: bool) -> None:
        """Write what is left."""
        self._run.finish(exit_code=0 if is_whole else 1)
        if wandb.run is None:  # Offline, what writes the file is waited for by this alone.
            wandb.teardown()


def open_tracker(path: Path, settings: Mapping[str, object]) -> WandbTracker:
    """Begin a run."""
    return WandbTracker(path, settings)
