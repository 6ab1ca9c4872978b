"""Reading a job: the file, then the flags over it; every mistake is one sentence."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edge_coordinator.job.plan_settings import DEFAULT_CLUSTERS
from edge_coordinator.job.settings import JobSettings
from runtime.addresses import without_password
from runtime.errors import SettingsError

_KIND = re.compile(
    r"(constrained|function|is-instance)-|(literal|tuple|list|dict)\[|(int|str|float|bool|\w+Settings)$"
)

_SHOULD = "input should be "
_TABLE = re.compile(r"a valid dictionary( or instance of \w+)?")
_LIST = re.compile(r"a valid tuple")


def load_job(
    path: Path | None,
    overrides: Mapping[str, object],
    *,
    defaults: Mapping[str, object] | None = None,
    said_by: str = "the flags",
) -> JobSettings:
    """Read a job file and put `overrides` (dotted key to value) over it, `defaults` beneath it.

    What then depends on other keys is filled in. Raises SettingsError that names the key, its value
    and what is allowed.
    """
    tree = _read(path) if path else {}
    for key in _superseded(tree, overrides):
        _drop(tree, key)
    for key, value in overrides.items():
        _put(tree, key, value)
    for key, value in (defaults or {}).items():
        if not _has(tree, key):
            _put(tree, key, value)
    try:
        return _filled_in(JobSettings.model_validate(tree))
    except ValidationError as error:
        where = str(path) if path else said_by
        raise SettingsError(f"{where}: {describe(error, JobSettings)}") from error


def dump_job(job: JobSettings) -> str:
    """Write a job as TOML that `load_job` reads back as the same, every key in it.

    What has no value is named in comments, with what that means.
    """
    tree = job.model_dump(mode="json", exclude_none=True)
    if "url" in tree["broker"]:
        tree["broker"]["url"] = without_password(tree["broker"]["url"])
    without = "".join(f"# {key}: {what}\n" for key, what in _without_value(job))
    return f"{tomli_w.dumps(tree)}\n# Without a value, as any job may be:\n{without}"


def value_of(job: JobSettings, key: str) -> object:
    """Look up a dotted key."""
    value: object = job
    for part in key.split("."):
        value = getattr(value, part)
    return value


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """Say in one sentence what is wrong with the first wrong key."""
    errors = error.errors(include_url=False)
    of_first = [each for each in errors if _names(each["loc"])[:1] == _names(errors[0]["loc"])[:1]]
    # Where a value may be of several kinds, what got furthest says what is wrong with it.
    found = max(of_first, key=lambda each: len(each["loc"]))
    place = _names(found["loc"])
    key = ".".join(place) or "the job"
    if found["type"] == "extra_forbidden":
        known = _keys(model, place[:-1])
        close = get_close_matches(place[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the keys are {', '.join(known)}"
        return f"unknown key {key}; {hint}"
    message = _message(found)
    same_place = [_message(each) for each in of_first if _names(each["loc"]) == place]
    if message.startswith(_SHOULD):
        kinds = [each.removeprefix(_SHOULD) for each in same_place if each.startswith(_SHOULD)]
        message = _SHOULD + ", or ".join(dict.fromkeys(kinds))
    value = found["input"]
    shown = "" if isinstance(value, Mapping) else f" = {value!r}"
    return f"{key}{shown}: {message}"


def _message(error: ErrorDetails) -> str:
    """Give pydantic's words for what is wrong, in those of a job file."""
    message = error["msg"].removeprefix("Value error, ")
    for theirs, ours in ((_TABLE, "a table"), (_LIST, "a list")):
        message = theirs.sub(ours, message)
    return message[:1].lower() + message[1:]


def _names(place: Sequence[int | str]) -> list[str]:
    """Give the keys of a place, without what pydantic calls the kinds that a value may be of."""
    return [str(part) for part in place if not _KIND.match(str(part))]


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    except RecursionError as error:
        raise SettingsError(f"{path} nests lists or tables too deep to be read") from error


def _put(tree: dict[str, Any], key: str, value: object) -> None:
    *tables, last = key.split(".")
    for table in tables:
        inner = tree.setdefault(table, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"{key}: {table} is not a table")
        tree = inner
    tree[last] = value


def _superseded(tree: Mapping[str, Any], overrides: Mapping[str, object]) -> list[str]:
    """List the keys of a file that flags do away with by giving others.

    Another mode of planning has cuts and a grouping of its own, and clusters are given by their
    number or by their size.
    """
    plan = tree.get("plan")
    mode = plan.get("mode", "auto") if isinstance(plan, dict) else "auto"
    keys = []
    if overrides.get("plan.mode", mode) != mode:
        keys += ["plan.cut", "plan.cuts", "plan.grouping"]
    if overrides.get("plan.cluster_size") is not None:
        keys.append("plan.clusters")
    if overrides.get("plan.clusters") is not None:
        keys.append("plan.cluster_size")
    return [key for key in keys if _has(tree, key)]


def _filled_in(job: JobSettings) -> JobSettings:
    """Fill in what is left to other keys: one way to say how many clusters there are."""
    if job.plan.clusters is not None or job.plan.cluster_size is not None:
        return job
    clusters = min(DEFAULT_CLUSTERS, job.devices.count)
    return job.model_copy(update={"plan": job.plan.model_copy(update={"clusters": clusters})})


def _without_value(model: BaseModel, table: str = "") -> Iterator[tuple[str, str]]:
    """List the keys that have no value, and what each is."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _without_value(value, f"{table}{name}.")
        elif value is None:
            yield f"{table}{name}", field.description or "none"


def _drop(tree: dict[str, Any], key: str) -> None:
    table, _, rest = key.partition(".")
    if rest:
        _drop(tree[table], rest)
    else:
        del tree[table]


def _has(tree: Mapping[str, Any], key: str) -> bool:
    table, _, rest = key.partition(".")
    inner = tree.get(table)
    return table in tree and (not rest or (isinstance(inner, Mapping) and _has(inner, rest)))


def _keys(model: type[BaseModel], place: list[str]) -> list[str]:
    """The keys of the table at `place`."""
    for part in place:
        found = model.model_fields.get(part)
        candidates = _models_in(found.annotation) if found else []
        if not candidates:
            return []
        model = candidates[0]
    return sorted(model.model_fields)


def _models_in(annotation: object) -> list[type[BaseModel]]:
    options = getattr(annotation, "__args__", (annotation,))
    return [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
