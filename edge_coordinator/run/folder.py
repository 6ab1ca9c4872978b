"""Where a run is written down: a new folder with its settings."""

import json
import re
from datetime import datetime
from errno import ENOTDIR
from pathlib import Path
from typing import Literal

from edge_coordinator.job.file import dump_job
from edge_coordinator.job.settings import JobSettings
from edge_coordinator.run.whole_file import replace_file
from runtime.errors import SettingsError, StorageError

Clock = Literal["wall", "virtual"]
"""Whose seconds a run tells: those that passed, or those of simulated devices."""


def check_clock(path: Path, clock: Clock, *, own: Clock) -> None:
    """SettingsError for a run whose seconds another command tells."""
    if clock != own:
        command = "simulate" if clock == "virtual" else "local or coordinator"
        raise SettingsError(f"{path} is a run of cpsl {command}; go on with that command")


def clock_of(path: Path) -> Clock:
    """Whose seconds a run tells, by its first round; before that nobody can say."""
    try:
        with (path / "rounds.jsonl").open(encoding="utf-8") as file:
            first = file.readline()
        return "virtual" if json.loads(first).get("clock") == "virtual" else "wall"
    except (OSError, ValueError):
        return "wall"


def make_run_folder(settings: JobSettings, *, now: datetime) -> Path:
    """Make a new folder below the job's output folder; StorageError if that cannot be."""
    model = re.sub(r"[^A-Za-z0-9]+", "-", settings.model.name)
    name = f"{now:%Y%m%d-%H%M%S}-{settings.training.method}-{model}"
    try:
        path = make_unused(settings.output, name)
        replace_file(path / "job.toml", dump_job(settings).encode())
    except OSError as error:
        raise StorageError(
            f"output {settings.output} cannot be written: {error.strerror}"
        ) from error
    return path


def write_job(path: Path, settings: JobSettings) -> None:
    """Write down what a run goes on with; StorageError if that cannot be."""
    try:
        replace_file(path / "job.toml", dump_job(settings).encode())
    except OSError as error:
        raise StorageError(f"{path / 'job.toml'} cannot be written: {error.strerror}") from error


def forget_run_folder(path: Path) -> None:
    """Remove the folder of a run that was not even prepared, with what little is in it."""
    for file in (path / "job.toml", *path.glob("agent-*.log")):
        file.unlink(missing_ok=True)
    path.rmdir()


def make_unused(folder: Path, name: str) -> Path:
    """Make a folder that was not there; OSError if it cannot be made."""
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        path = folder / f"{name}{suffix}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=0o700)  # Of its user alone: a job, and what came of it.
        except FileExistsError:
            if not folder.is_dir():
                raise NotADirectoryError(ENOTDIR, "it is no folder", str(folder)) from None
            continue
        return path
    raise StorageError(f"{folder} has a thousand runs named {name}; move some away")
