"""A job as Python says it: the tables of a job file, typed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict, Unpack

from edge_coordinator.job.codec_settings import CodecSettings
from edge_coordinator.job.data_settings import DataSettings
from edge_coordinator.job.file import dump_job, load_job
from edge_coordinator.job.plan_settings import PlanSettings
from edge_coordinator.job.settings import (
    BrokerSettings,
    DeviceSettings,
    EvaluationSettings,
    JobSettings,
    ModelSettings,
)
from edge_coordinator.job.training_settings import TrainingSettings
from runtime.errors import SettingsError
from runtime.plugins import name_of_script

Table = Mapping[str, Any]
_HERE = "the job"


class JobKeys(TypedDict, total=False):
    """What stands above the tables of a job file."""

    site: str
    seed: int
    server_threads: int
    output: Path | str


class JobTables(JobKeys, total=False):
    """All of a job file; a table that is None is left out."""

    model: ModelSettings | Table | None
    data: DataSettings | Table | None
    training: TrainingSettings | Table | None
    codec: CodecSettings | Table | None
    plan: PlanSettings | Table | None
    devices: DeviceSettings | Table | None
    evaluation: EvaluationSettings | Table | None
    broker: BrokerSettings | Table | None


_TABLES = JobTables.__annotations__.keys() - JobKeys.__annotations__.keys()


class TypedJob(JobSettings):
    """What to train, and how: a table of the job file is an argument, and a key one of its own.

    `Job(model={"name": "lenet"}, training={"rounds": 10})`; what is left out has its default
    (docs/job.toml). A function or a class may stand wherever a job takes `package.module:name`.
    SettingsError says in a sentence what is wrong.
    """

    def __init__(self, **parts: Unpack[JobTables]) -> None:
        given = {n: part for n, part in parts.items() if part is not None or n not in _TABLES}
        super().__init__(**_fields(load_job(None, _all(given), said_by=_HERE)))

    @classmethod
    def read(cls, path: Path | str, changes: Table | None = None) -> "TypedJob":
        """Read a job file or a run's directory; `changes` are dotted keys over it."""
        path = Path(path)
        return cls._of(load_job(path / "job.toml" if path.is_dir() else path, _all(changes)))

    def but(self, changes: Table) -> "TypedJob":
        """Give the same job with other values of some keys, as `{"training.rounds": 3}`."""
        tree = self.model_dump(exclude_none=True)
        return self._of(load_job(None, tree | _all(changes), said_by=_HERE))

    def toml(self) -> str:
        """Write it as a job file."""
        return dump_job(self)

    def __repr__(self) -> str:
        """Say what differs from the defaults, as it could be written."""
        stated = self.model_dump(exclude_defaults=True, exclude_none=True)
        return f"Job({', '.join(f'{name}={value!r}' for name, value in stated.items())})"

    __str__ = __repr__

    @classmethod
    def _of(cls, settings: JobSettings) -> "TypedJob":
        return cls.model_construct(**_fields(settings))


Job = TypedJob
"""As it is imported; inside, a job is what has been made ready of its settings."""


def _fields(settings: JobSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in JobSettings.model_fields}


def _all(changes: Table | None) -> dict[str, object]:
    return {key: _named(value) for key, value in (changes or {}).items()}


def _named(value: object) -> object:
    """Give values as a job file holds them; what is code, by its name."""
    if isinstance(value, Mapping):
        return {key: _named(each) for key, each in value.items()}
    return reference_of(value) if callable(value) else value


def reference_of(code: Callable[..., object]) -> str:
    """Name a function or a class as `package.module:name`; SettingsError if it has no such name.

    What a script itself defines is named after its file, where other processes find it.
    """
    module, name = getattr(code, "__module__", None), getattr(code, "__qualname__", "")
    if module is None or not name.isidentifier():
        raise SettingsError(
            f"{name or code!r} has no name of its own in a module, by which a job could name it: "
            "define it at the top of one"
        )
    if module == "__main__":
        module = name_of_script()
    return f"{module}:{name}"
