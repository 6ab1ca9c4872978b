"""The job that a command line asks for: its file, and the flags over it."""

import argparse
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from edge_coordinator.cli.flags import JOB_FLAGS, SIMULATION_FLAGS
from runtime.addresses import own_path
from runtime.errors import SettingsError
from runtime.offered import TRACKERS
from runtime.plugins import AllowedCode
from runtime.service.arguments import parse_assignment

if TYPE_CHECKING:
    from edge_coordinator.job.settings import JobSettings
    from profiles.scenario import Scenario


def job_settings(flags: argparse.Namespace, console: Console) -> "JobSettings":
    """Read the job that a command line asks for; SettingsError that names what is wrong."""
    from edge_coordinator.job.file import load_job

    path = _job_path(flags, console)
    settings = load_job(path, _overrides(flags))
    _check_code(flags, settings, path)
    return settings


def replayed_settings(flags: argparse.Namespace) -> "JobSettings":
    """Read the job of the run that is replayed, with the changes that a command line asks for."""
    from edge_coordinator.job.file import load_job

    path = Path(flags.run) / "job.toml"
    if not path.is_file():
        raise SettingsError(f"{flags.run} is not the directory of a run: it holds no job.toml")
    settings = load_job(path, _overrides(flags))
    _check_code(flags, settings, path)
    return settings


def simulated_settings(
    flags: argparse.Namespace, console: Console
) -> "tuple[JobSettings, Scenario]":
    """Read the job of a simulation, and its scenario; what the command adds is said."""
    from edge_coordinator.job.file import load_job
    from edge_coordinator.simulation.prepare import settings_for

    path = _job_path(flags, console)
    settings, scenario = settings_for(
        lambda defaults: load_job(path, _overrides(flags), defaults=defaults),
        base_dir=Path.cwd(),
        from_file=path is not None,
        say=partial(console.print, soft_wrap=True),
    )
    _check_code(flags, settings, path)
    if settings.devices.engine != "torch":
        console.print(
            f"its devices compute with torch; a run with {settings.devices.engine} differs by "
            "rounding",
            soft_wrap=True,
        )
    return settings, scenario


def _check_code(flags: argparse.Namespace, settings: "JobSettings", path: Path | None) -> None:
    """Raise SettingsError if the job of an earlier run names code that nobody allowed now.

    A directory of a run may be another's; what this command's own words name is its user's wish.
    """
    from edge_coordinator.job.settings import own_code

    if path is None or path == getattr(flags, "config", None):
        return
    said = _overrides(flags).values()
    allowed = AllowedCode(tuple(flags.allow_code))
    for name in own_code(settings):
        if name not in said:
            allowed.check(name, what=f"in {path},", to_allow="add", base_dir=Path.cwd())


def _check_trackers(names: Sequence[str]) -> None:
    for name in names:
        if name in TRACKERS and find_spec(TRACKERS[name]) is None:
            raise SettingsError(
                f"--track {name} needs {TRACKERS[name]}, not installed here: "
                f"pip install 'cpsl-edge[{name}]'"
            )


def _job_path(flags: argparse.Namespace, console: Console) -> Path | None:
    """Find the file that the job is in: the one given, that of a run to go on with or to replay."""
    _check_trackers(getattr(flags, "track", ()))
    from edge_coordinator.job.plan_settings import REPLAY

    if getattr(flags, "resume", None) is not None:
        if flags.config is not None:
            raise SettingsError("--resume goes on with the job of its run; leave --config out")
        return Path(flags.resume) / "job.toml"
    mode = str(_overrides(flags).get("plan.mode"))
    run = mode.removeprefix(REPLAY)
    if flags.config is not None or run in ("", mode):
        return Path(flags.config) if flags.config is not None else None
    path = own_path(run, base_dir=Path()) / "job.toml"
    if not path.is_file():
        raise SettingsError(f"plan.mode = {mode!r}: {run} is not the directory of a run")
    console.print(f"the job and its plans are those of {run}", soft_wrap=True)
    return path


def _overrides(flags: argparse.Namespace) -> dict[str, object]:
    """Flags that were given, as keys of the job file; --set goes over them."""
    given = {
        key: parse_assignment(f"value={value}")[1]
        for flag, key, _ in JOB_FLAGS + SIMULATION_FLAGS
        if (value := getattr(flags, flag.replace("-", "_"), None)) is not None
    }
    if getattr(flags, "broker", None) is not None:
        given[flags.broker_key] = flags.broker
    return given | dict(parse_assignment(text) for text in flags.set)
