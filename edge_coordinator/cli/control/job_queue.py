"""The jobs that a site's coordinator was asked to train, in a file that outlives it.

A job that was running when the coordinator ended is running still when it is back: it goes on.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_coordinator.run.whole_file import replace_file
from runtime.errors import SettingsError, StorageError
from runtime.wire.run_control import QueuedJob

MOST_WAITING = 1000
MOST_OVER = 200
"""Of more jobs that are over, the oldest are forgotten; their runs stay."""


class _Saved(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    jobs: tuple[QueuedJob, ...] = ()
    last_number: int = 0


class JobQueue:
    """Jobs by their numbers, in the order of their turns."""

    def __init__(self, folder: Path) -> None:
        """Read what is there; StorageError if the folder cannot be made, or read."""
        self.folder = folder
        self._path = folder / "queue.json"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            text = self._path.read_text(encoding="utf-8") if self._path.exists() else "{}"
            saved = _Saved.model_validate_json(text)
        except OSError as error:
            raise StorageError(f"{self._path} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise StorageError(
                f"{self._path} cannot be read as a queue of jobs; move it away to begin a new one"
            ) from error
        self._jobs = {job.number: job for job in saved.jobs}
        self._last_number = saved.last_number

    @property
    def jobs(self) -> tuple[QueuedJob, ...]:
        """All that are known, in the order of their turns."""
        return tuple(self._jobs.values())

    def job_file(self, number: int) -> Path:
        """Where a job's settings are."""
        return self.folder / f"job-{number}.toml"

    def submit(self, text: str, *, name: str, by: str, now_s: float) -> QueuedJob:
        """Take a job whose settings have been checked; SettingsError if there are too many."""
        waiting = sum(job.state == "queued" for job in self.jobs)
        if waiting >= MOST_WAITING:
            raise SettingsError(f"{waiting} jobs are waiting already; cancel some")
        number = self._last_number + 1
        job = QueuedJob(number=number, name=name, state="queued", by=by, submitted_at_unix_s=now_s)
        self._write(self.job_file(number), text)
        self._last_number = number
        self._jobs[number] = job
        self._save()
        return job

    def next(self) -> QueuedJob | None:
        """Whose turn it is: one that was interrupted, else who has waited longest."""
        states = ("running", "queued")
        return next((job for state in states for job in self.jobs if job.state == state), None)

    def job(self, number: int) -> QueuedJob:
        """Find a job; SettingsError if there is none of that number."""
        if number not in self._jobs:
            raise SettingsError(f"there is no job {number} in the queue")
        return self._jobs[number]

    def change(self, number: int, **changes: object) -> QueuedJob:
        """Write down what became of a job."""
        job = self._jobs[number] = self._jobs[number].model_copy(update=changes)
        over = [job for job in self.jobs if job.state not in {"queued", "running"}]
        for old in over[: max(0, len(over) - MOST_OVER)]:
            del self._jobs[old.number]
            self.job_file(old.number).unlink(missing_ok=True)
        self._save()
        return job

    def _save(self) -> None:
        saved = _Saved(jobs=self.jobs, last_number=self._last_number)
        self._write(self._path, saved.model_dump_json(indent=1) + "\n")

    def _write(self, path: Path, text: str) -> None:
        try:
            replace_file(path, text.encode())
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}") from error
