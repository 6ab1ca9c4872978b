"""The run directory: the settings as run, one JSON line a round, the model, the curves."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_coordinator.formatting import figure_of
from edge_coordinator.job.file import load_job
from edge_coordinator.job.settings import EvaluationSettings, JobSettings
from edge_coordinator.job.standing import BEGINNING, Point, Standing, is_evaluated
from edge_coordinator.planning.fleet import PlanBasis
from edge_coordinator.run.best_weights import best_round, keep_checkpoint
from edge_coordinator.run.checkpoint import START, Reached, load_checkpoint, save_checkpoint
from edge_coordinator.run.curves import Curve
from edge_coordinator.run.events import ClassesAgreed, Progress, RoundDone, RoundPlanned, Stopped
from edge_coordinator.run.folder import Clock, check_clock, make_run_folder, write_job
from edge_coordinator.run.model.files import write_file
from edge_coordinator.run.plan_bases import BASES, BasisLines
from edge_coordinator.run.plot_style import figure, line_style
from edge_coordinator.run.sound_checkpoints import (
    forget_sound_after,
    keep_sound,
    return_to_sound,
)
from edge_coordinator.run.whole_file import replace_file
from edge_coordinator.training.edge_model import EdgeModel
from runtime.errors import SettingsError, StorageError
from runtime.wire.names import ClassNames
from runtime.wire.published import PlanReport, RoundReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

_TEST, _TRAIN = line_style(0), line_style(1)


class RunDirectory:
    """Writes a run's results as they come; an observer of the run."""

    def __init__(
        self, path: Path, *, clock: Clock = "wall", rules: EvaluationSettings | None = None
    ) -> None:
        """`rules` say what a gain is and whether the best round is kept; their defaults if none."""
        self.path = path
        self.clock = clock
        self.rules = rules or EvaluationSettings()
        self.reports = Curve()
        self.reached = START
        """The last round that is done and in the checkpoint."""
        self.classes: ClassNames = ()
        """What the devices agreed on, where the job names no classes."""
        self.stopped = ""
        """That the run was ended from outside, and by whom; empty if not."""
        self._plan: PlanReport | None = None
        self._basis: PlanBasis | None = None
        self._bases = BasisLines()

    @classmethod
    def make(cls, settings: JobSettings, *, now: datetime, clock: Clock = "wall") -> "RunDirectory":
        """Make a new directory below the job's output folder; StorageError if that cannot be."""
        path = make_run_folder(settings, now=now)
        return cls(path, clock=clock, rules=settings.evaluation)

    @classmethod
    def resume(
        cls,
        path: Path,
        model: EdgeModel,
        *,
        clock: Clock = "wall",
        rules: EvaluationSettings | None = None,
    ) -> "RunDirectory":
        """Go on in a run's directory: its checkpoint goes into the model."""
        directory = cls(path, clock=clock, rules=rules)
        reached = load_checkpoint(path, model)
        standing = directory._keep_rounds_until(reached.round)
        directory.reached = replace(reached, standing=standing)
        directory._find_best()
        forget_sound_after(path, reached.round)
        return directory

    def save(self, model: EdgeModel, reached: Reached) -> None:
        """Write the checkpoint of a round that is done, and keep it if it is the best."""
        save_checkpoint(self.path, model, reached)
        self.reached = reached
        self._keep_if_best()
        if reached.standing.soundness.last_sound == reached.round:
            rules = self.rules
            keep_sound(self.path, reached.round, every=rules.every, most=rules.sound_checkpoints)

    def return_to_sound(self, model: EdgeModel) -> int | None:
        """Put the newest checkpoint of a sound round into the model; its round, if there is one."""
        return return_to_sound(self.path, model)

    def go_back(self, model: EdgeModel) -> None:
        """Forget what came after the checkpoint: a round that was not done is in no model."""
        self.reached = replace(load_checkpoint(self.path, model), standing=self.reached.standing)
        self.reports[:] = [point for point in self.reports if point.round <= self.reached.round]

    def tell(self, progress: Progress) -> None:
        """Write down a finished round, with the plan it had."""
        match progress:
            case ClassesAgreed(classes):
                self.classes = classes
                path = self.path / "job.toml"
                write_job(self.path, load_job(path, {"data.classes": list(classes)}))
            case Stopped():
                self.stopped = progress.words
            case RoundPlanned(plan, _, basis):
                self._plan, self._basis = plan, basis
            case RoundDone(report):
                self.reports.add(report)
                line = json.loads(report.encode())
                line["clock"] = self.clock
                line["plan"] = json.loads(self._plan.encode()) if self._plan else None
                self._append("rounds.jsonl", json.dumps(line))
                if self._basis is not None:
                    self._append(BASES, self._bases.line(report.round, self._basis))

    def _keep_if_best(self) -> None:
        best = self.reached.standing.best
        if self.rules.keep == "best" and best is not None and best.round == self.reached.round:
            keep_checkpoint(self.path)

    def _find_best(self) -> None:
        """See that the best round's weights are there, or take the best from here on."""
        self._keep_if_best()
        best = self.reached.standing.best
        if self.rules.keep == "last" or best is None or best.round == best_round(self.path):
            return
        log.warning("round %d was the best, but its weights are not in %s", best.round, self.path)
        last = self.reports[-1]
        best = last if last.round == self.reached.round and is_evaluated(last) else None
        self.reached = replace(self.reached, standing=replace(self.reached.standing, best=best))
        self._keep_if_best()

    def _append(self, name: str, line: str) -> None:
        try:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
                file.flush()
                os.fsync(file.fileno())  # So that no round of the checkpoint is missing here.
        except OSError as error:
            raise StorageError(
                f"{self.path / name} cannot be written: {error.strerror}; make room and "
                f"go on with --resume {self.path}"
            ) from error

    def _keep_rounds_until(self, last: int) -> Standing:
        """Forget what was written of rounds after the checkpoint; they are run again."""
        path, standing = self.path / "rounds.jsonl", BEGINNING
        if not path.exists() and not last:
            return standing
        try:
            kept = []
            # A line that was cut short is of a round after the checkpoint.
            for line in path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines():
                tree = json.loads(line)
                if tree["round"] > last:
                    continue
                kept.append(line)
                tree.pop("plan")
                check_clock(self.path, tree.pop("clock", "wall"), own=self.clock)
                report = RoundReport.model_validate(tree)
                self.reports.add(report)
                standing = standing.after(report, least_gain=self.rules.least_gain)
            replace_file(path, "".join(f"{line}\n" for line in kept).encode())
        except (OSError, ValueError, KeyError) as error:
            raise SettingsError(f"{path} cannot be read as the rounds of a run: {error}") from error
        return standing

    def discard_if_empty(self) -> bool:
        """Remove the directory of a run that never began, which holds its settings alone."""
        if [file.name for file in self.path.iterdir()] != ["job.toml"]:
            return False
        (self.path / "job.toml").unlink()
        self.path.rmdir()
        return True

    def save_curves(self) -> Path:
        """Plot the metric and the loss over rounds and over seconds."""
        path = self.path / "curves.png"
        seconds = "simulated seconds" if self.clock == "virtual" else "seconds"
        picture = BytesIO()
        plot_curves(picture, self.reports, seconds=seconds)
        write_file(path, picture.getvalue())
        return path


def plot_curves(file: BytesIO, reports: Sequence[Point], *, seconds: str = "seconds") -> None:
    """The metric above, loss below; over rounds on the left, over seconds on the right."""
    with figure(file, height=5.5) as drawn:
        axes = drawn.subplots(2, 2, sharex="col", sharey="row", squeeze=False)
        for column, unit in enumerate(("round", "seconds")):
            _plot_metric(axes[0][column], reports, unit)
            _plot_loss(axes[1][column], reports, unit)
            axes[1][column].set_xlabel(seconds if unit == "seconds" else unit)
        axes[0][0].set_ylabel(f"test {_metric_name(reports)}")
        axes[1][0].set_ylabel("loss")
        axes[1][1].legend()


_ACCURACY = "accuracy (%)"


def _metric_name(reports: Sequence[Point]) -> str:
    figures = (figure_of(report) for report in reversed(reports))
    name = next((figure[0] for figure in figures if figure), "accuracy")
    return _ACCURACY if name == "accuracy" else name


def _plot_metric(axes: "Axes", reports: Sequence[Point], unit: str) -> None:
    figures = [(report, figure_of(report)) for report in reports]
    in_percent = _metric_name(reports) == _ACCURACY
    points = [
        (_x(report, unit), figure[1] * (100 if in_percent else 1))
        for report, figure in figures
        if figure is not None
    ]
    if points:
        _line(axes, points, "test", _TEST)
        best = (min if reports[-1].lower_is_better else max)(y for _, y in points)
        said = f"best {best:.1f} %" if in_percent else f"best {best:.4g}"
        axes.set_title(said, loc="right", fontsize=9)
    axes.grid(visible=True, alpha=0.3)


def _plot_loss(axes: "Axes", reports: Sequence[Point], unit: str) -> None:
    train = [(_x(r, unit), r.train_loss) for r in reports if r.train_loss is not None]
    test = [(_x(r, unit), r.test_loss) for r in reports if r.test_loss is not None]
    _line(axes, train, "training", _TRAIN)
    _line(axes, test, "test", _TEST)
    axes.grid(visible=True, alpha=0.3)


def _line(
    axes: "Axes", points: Sequence[tuple[float, float]], label: str, look: Mapping[str, Any]
) -> None:
    marker = "o" if len(points) == 1 else ""
    x, y = [x for x, _ in points], [y for _, y in points]
    axes.plot(x, y, label=label, marker=marker, **look)


def _x(report: Point, unit: str) -> float:
    return report.round if unit == "round" else report.elapsed_s
