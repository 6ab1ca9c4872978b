"""The run directory: the settings as run, one JSON line a round, the model, the curves."""

import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.axes import Axes
from safetensors.torch import save

from edge_coordinator.checkpoint import (
    START,
    Reached,
    load_checkpoint,
    replace_file,
    save_checkpoint,
)
from edge_coordinator.curve import Curve, Point
from edge_coordinator.look import figure, line_look
from edge_coordinator.progress import Progress, RoundDone, RoundPlanned
from edge_coordinator.run_folder import make_run_folder
from edge_coordinator.settings import JobSettings
from edge_coordinator.training.edge_model import EdgeModel
from runtime.errors import SettingsError
from runtime.models.sequence import Network
from runtime.published import PlanReport, RoundReport

_TEST, _TRAIN = line_look(0), line_look(1)

Clock = Literal["wall", "virtual"]
"""Whose seconds a run tells: those that passed, or those of simulated devices."""


class RunDirectory:
    """Writes a run's results as they come; an observer of the run."""

    def __init__(self, path: Path, *, clock: Clock = "wall") -> None:
        self.path = path
        self.clock = clock
        self.reports = Curve()
        self.reached = START
        """The last round that is done and in the checkpoint."""
        self._plan: PlanReport | None = None

    @classmethod
    def make(cls, settings: JobSettings, *, now: datetime, clock: Clock = "wall") -> "RunDirectory":
        """Make a new directory below the job's output folder; SettingsError if that cannot be."""
        return cls(make_run_folder(settings, now=now), clock=clock)

    @classmethod
    def resume(cls, path: Path, model: EdgeModel, *, clock: Clock = "wall") -> "RunDirectory":
        """Go on in a run's directory: its checkpoint goes into the model."""
        directory = cls(path, clock=clock)
        directory.reached = load_checkpoint(path, model)
        directory._keep_rounds_until(directory.reached.round)
        return directory

    def save(self, model: EdgeModel, reached: Reached) -> None:
        """Write the checkpoint of a round that is done."""
        save_checkpoint(self.path, model, reached)
        self.reached = reached

    def go_back(self, model: EdgeModel) -> None:
        """Forget what came after the checkpoint: a round that was not done is in no model."""
        self.reached = load_checkpoint(self.path, model)
        self.reports[:] = [point for point in self.reports if point.round <= self.reached.round]

    def tell(self, progress: Progress) -> None:
        """Write down a finished round, with the plan it had."""
        match progress:
            case RoundPlanned(plan, _):
                self._plan = plan
            case RoundDone(report):
                self.reports.add(report)
                line = json.loads(report.encode())
                line["clock"] = self.clock
                line["plan"] = json.loads(self._plan.encode()) if self._plan else None
                self._append(json.dumps(line))

    def _append(self, line: str) -> None:
        try:
            with (self.path / "rounds.jsonl").open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
                file.flush()
                os.fsync(file.fileno())  # So that no round of the checkpoint is missing here.
        except OSError as error:
            raise SettingsError(
                f"{self.path / 'rounds.jsonl'} cannot be written: {error.strerror}; make room and "
                f"go on with --resume {self.path}"
            ) from error

    def _keep_rounds_until(self, last: int) -> None:
        """Forget what was written of rounds after the checkpoint; they are run again."""
        path = self.path / "rounds.jsonl"
        if not path.exists() and not last:
            return
        try:
            kept = []
            # A line that was cut short is of a round after the checkpoint.
            for line in path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines():
                tree = json.loads(line)
                if tree["round"] > last:
                    continue
                kept.append(line)
                tree.pop("plan")
                self._check_clock(tree.pop("clock", "wall"))
                self.reports.add(RoundReport.model_validate(tree))
            replace_file(path, "".join(f"{line}\n" for line in kept).encode())
        except (OSError, ValueError, KeyError) as error:
            raise SettingsError(f"{path} cannot be read as the rounds of a run: {error}") from error

    def _check_clock(self, clock: Clock) -> None:
        if clock != self.clock:
            command = "simulate" if clock == "virtual" else "local or coordinator"
            raise SettingsError(f"{self.path} is a run of cpsl {command}; go on with that command")

    def discard_if_empty(self) -> bool:
        """Remove the directory of a run that never began, which holds its settings alone."""
        if [file.name for file in self.path.iterdir()] != ["job.toml"]:
            return False
        (self.path / "job.toml").unlink()
        self.path.rmdir()
        return True

    def save_weights(self, network: Network) -> Path:
        """Write the whole model as safetensors."""
        path = self.path / "model.safetensors"
        content = save({name: t.contiguous() for name, t in network.state_dict().items()})
        _write(path, content)
        return path

    def save_onnx(self, network: Network, sample_shape: tuple[int, ...]) -> Path:
        """Write the whole model as ONNX, any batch size, in evaluation mode."""
        path = self.path / "model.onnx"
        example = torch.zeros(2, *sample_shape)
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        # The exporter warns of its own deprecations and prints its progress.
        with warnings.catch_warnings(), redirect_stdout(StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network.eval(),
                (example,),
                dynamo=True,
                input_names=["input"],
                output_names=["output"],
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
                verbose=False,
            )
            assert program is not None
            with _in_one_sentence(path):
                program.save(path, external_data=False)
        return path

    def save_curves(self) -> Path:
        """Plot accuracy and loss over rounds and over seconds."""
        path = self.path / "curves.png"
        seconds = "simulated seconds" if self.clock == "virtual" else "seconds"
        picture = BytesIO()
        plot_curves(picture, self.reports, seconds=seconds)
        _write(path, picture.getvalue())
        return path


def plot_curves(file: BytesIO, reports: Sequence[Point], *, seconds: str = "seconds") -> None:
    """Accuracy above, loss below; over rounds on the left, over seconds on the right."""
    with figure(file, height=5.5) as drawn:
        axes = drawn.subplots(2, 2, sharex="col", sharey="row", squeeze=False)
        for column, unit in enumerate(("round", "seconds")):
            _plot_accuracy(axes[0][column], reports, unit)
            _plot_loss(axes[1][column], reports, unit)
            axes[1][column].set_xlabel(seconds if unit == "seconds" else unit)
        axes[0][0].set_ylabel("test accuracy (%)")
        axes[1][0].set_ylabel("loss")
        axes[1][1].legend()


def _plot_accuracy(axes: Axes, reports: Sequence[Point], unit: str) -> None:
    points = [
        (_x(report, unit), report.test_accuracy * 100)
        for report in reports
        if report.test_accuracy is not None
    ]
    if points:
        _line(axes, points, "test", _TEST)
        best = max(y for _, y in points)
        axes.set_title(f"best {best:.1f} %", loc="right", fontsize=9)
    axes.grid(visible=True, alpha=0.3)


def _plot_loss(axes: Axes, reports: Sequence[Point], unit: str) -> None:
    train = [(_x(r, unit), r.train_loss) for r in reports if r.train_loss is not None]
    test = [(_x(r, unit), r.test_loss) for r in reports if r.test_loss is not None]
    _line(axes, train, "training", _TRAIN)
    _line(axes, test, "test", _TEST)
    axes.grid(visible=True, alpha=0.3)


def _line(
    axes: Axes, points: Sequence[tuple[float, float]], label: str, look: Mapping[str, Any]
) -> None:
    marker = "o" if len(points) == 1 else ""
    x, y = [x for x, _ in points], [y for _, y in points]
    axes.plot(x, y, label=label, marker=marker, **look)


def _x(report: Point, unit: str) -> float:
    return report.round if unit == "round" else report.elapsed_s


def _write(path: Path, content: bytes) -> None:
    with _in_one_sentence(path):
        replace_file(path, content)


@contextmanager
def _in_one_sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from error
