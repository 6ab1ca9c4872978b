"""TensorBoard: event files in the run's directory, `tensorboard --logdir runs` shows all runs."""

from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter


class TensorBoardTracker:
    """Writes event files below a run's directory."""

    def __init__(self, path: Path, settings: Mapping[str, object]) -> None:
        self._writer = SummaryWriter(str(path / "tensorboard"))
        table = "\n".join(f"| {key} | {value} |" for key, value in settings.items())
        self._writer.add_text("settings", f"| key | value |\n|---|---|\n{table}")

    def log(self, round_: int, figures: Mapping[str, float]) -> None:
        """Write a point of each curve, and let it be seen."""
        for name, figure in figures.items():
            self._writer.add_scalar(name, figure, round_)
        self._writer.flush()

    def close(self, *, is_whole: bool) -> None:  # noqa: ARG002 - event files cannot say
        """Close the file."""
        self._writer.close()


def open_tracker(path: Path, settings: Mapping[str, object]) -> TensorBoardTracker:
    """Open the event file of a run."""
    return TensorBoardTracker(path, settings)
