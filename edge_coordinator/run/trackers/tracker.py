"""What a run tells a tool that keeps experiments: the figures of each round."""

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

from edge_coordinator.run.events import Progress, RoundDone
from runtime.errors import SettingsError
from runtime.plugins import Factory, import_factory
from runtime.wire.published import RoundReport

FIGURES = (
    *("train_loss", "test_loss", "test_accuracy", "learning_rate", "round_s"),
    *("predicted_round_s", "elapsed_s", "up_bytes", "down_bytes", "num_devices", "num_clusters"),
)


log = logging.getLogger(__name__)


class Tracker(Protocol):
    """A run in such a tool; one of the user's own is given by `--track package.module:factory`.

    The factory is called with the run's directory and the job's settings by their dotted keys.
    """

    def log(self, round_: int, figures: Mapping[str, float]) -> None:
        """Keep the figures of a round."""
        ...

    def close(self, *, is_whole: bool) -> None:
        """Write what is still to be written, and whether the run came to its end."""
        ...


class TrackedRounds:
    """Passes on each round that is over; an observer of the run."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def tell(self, progress: Progress) -> None:
        """Pass on a round that is over."""
        if isinstance(progress, RoundDone):
            self._tracker.log(progress.report.round, figures_of(progress.report))


def figures_of(report: RoundReport) -> dict[str, float]:
    """Take the figures of a round that has them."""
    found = {name: getattr(report, name) for name in FIGURES}
    of_task = {f"test_{_plain(name)}": value for name, value in report.test_figures.items()}
    if report.test_metric is not None:
        of_task[f"test_{_plain(report.metric)}"] = report.test_metric
    return of_task | {name: float(value) for name, value in found.items() if value is not None}


def _plain(name: str) -> str:
    """Write a metric's name as all of these tools take it."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def flat_settings(settings: BaseModel) -> dict[str, object]:
    """Name each setting by its dotted key; how the broker is reached is nobody else's business."""
    flat: dict[str, object] = {}
    _flatten("", settings.model_dump(mode="json", exclude={"broker"}), flat)
    return flat


def _flatten(prefix: str, tree: Mapping[str, object], flat: dict[str, object]) -> None:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            _flatten(f"{prefix}{key}.", value, flat)
        else:
            flat[prefix + key] = value


@contextlib.contextmanager
def tracked(
    names: Sequence[str], path: Path, settings: Mapping[str, object]
) -> Iterator[list[TrackedRounds]]:
    """Have these tools keep the run in `path`, with the settings that it has.

    SettingsError if one cannot begin. What one cannot write at the end is said, and no more.
    """
    with contextlib.ExitStack() as stack:
        trackers: list[TrackedRounds] = []
        for name in dict.fromkeys(names):
            open_tracker = _factory_of(name)
            try:
                tracker: Tracker = open_tracker(path, settings)
            except Exception as error:  # Theirs are many, and say what is wrong.
                raise SettingsError(f"--track {name} cannot begin: {_first_line(error)}") from error
            lacks = [
                each for each in ("log", "close") if not callable(getattr(tracker, each, None))
            ]
            if lacks:
                raise SettingsError(
                    f"--track {name} gave a {type(tracker).__name__} without {lacks[0]}(); it has "
                    "to give what has log(round, figures) and close(is_whole=…)"
                )
            stack.push(_Closing(name, tracker))
            trackers.append(TrackedRounds(tracker))
        yield trackers


def _factory_of(name: str) -> Factory:
    """Find what opens a tracker: a tool's by its name, or the user's own by its path."""
    if ":" in name:
        return import_factory(name, base_dir=Path())
    module = import_module(f"edge_coordinator.run.trackers.to_{name}")
    factory: Factory = module.open_tracker
    return factory


class _Closing:
    """Closes a tracker at the end of a run, whatever ends it."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name = name
        self._tracker = tracker

    def __enter__(self) -> None:
        """Nothing is to be done."""

    def __exit__(self, error_type: type[BaseException] | None, *rest: object) -> None:
        try:
            self._tracker.close(is_whole=error_type is None)
        except Exception as error:  # The run is over and written down.
            log.warning("%s may lack the last figures: %s", self._name, _first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
