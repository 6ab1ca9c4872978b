"""A job that somebody submits: what of it counts, and what it may not ask for."""

import tempfile
from pathlib import Path

from edge_coordinator.job.file import load_job
from edge_coordinator.job.settings import JobSettings, own_code
from runtime.errors import SettingsError
from runtime.plugins import AllowedCode


def checked_job(text: str, own: JobSettings, *, allowed: AllowedCode, base_dir: Path) -> str:
    """Give a submitted job as it will be trained; SettingsError if it cannot be.

    Site, broker and the folder of the runs are those of the coordinator, whatever the job says. It
    runs no code that its coordinator was not told to allow: who submits is known to the broker
    only.
    """
    settings = _read(text)
    for name in own_code(settings):
        allowed.check(name, what="in the job,", to_allow="start the coordinator with",
                      base_dir=base_dir)  # fmt: skip
    if settings.plan.replayed is not None:
        raise SettingsError("plan.mode = 'replay:…' names a folder of the coordinator's machine")
    kept = {"site": own.site, "broker": own.broker, "output": own.output}
    return job_text(settings.model_copy(update=kept))


def job_text(settings: JobSettings) -> str:
    """Write a job with all its keys, and with the broker's password if there is one."""
    import tomli_w  # noqa: PLC0415 - only where jobs are written

    return tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True))


def _read(text: str) -> JobSettings:
    with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        try:
            return load_job(Path(file.name), {})
        except SettingsError as error:
            raise SettingsError(str(error).replace(file.name, "the job")) from error
