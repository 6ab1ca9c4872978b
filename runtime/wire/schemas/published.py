"""JSON Schema of what is published for others to read."""

import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from runtime.errors import SettingsError, StorageError
from runtime.wire.fields import Message
from runtime.wire.history import HistoryReport
from runtime.wire.published import (
    CoordinatorStatus,
    DeviceMetrics,
    DeviceProfile,
    DeviceStatus,
    InferenceStatus,
    PlanReport,
    RoundReport,
)
from runtime.wire.run_control import DeviceTags, WantedSettings

PUBLISHED: dict[str, type[Message]] = {
    "status": DeviceStatus,
    "profile": DeviceProfile,
    "metrics": DeviceMetrics,
    "plan": PlanReport,
    "round": RoundReport,
    "history": HistoryReport,
    "coordinator": CoordinatorStatus,
    "inference": InferenceStatus,
    "tags": DeviceTags,
    "settings": WantedSettings,
}
"""Schema name to message; the files `schemas/NAME.json` ship with the package."""


def generate_schema(name: str) -> dict[str, Any]:
    """Schema of what a message is published as; SettingsError for a name that is none."""
    if name not in PUBLISHED:
        raise SettingsError(f"no schema named {name!r}; there are {', '.join(PUBLISHED)}")
    schema = PUBLISHED[name].model_json_schema(mode="serialization")
    unsent = PUBLISHED[name].unsent_if_none
    schema["required"] = [field for field in schema["required"] if field not in unsent]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def dump_schema(name: str) -> str:
    """Write a schema as the text of its file."""
    return json.dumps(generate_schema(name), indent=2, sort_keys=True) + "\n"


def write_schemas(folder: Path, names: Iterable[str]) -> None:
    """Write each schema as a file NAME.json; StorageError where that cannot be."""
    texts = {name: dump_schema(name) for name in names}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / f"{name}.json").write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {error.filename}: {error.strerror}") from error


def shipped_schema(name: str) -> str:
    """Read the file that ships with the package."""
    return files("runtime").joinpath("schemas", f"{name}.json").read_text(encoding="utf-8")
