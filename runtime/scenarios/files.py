"""Reading scenarios: by the name of one that is shipped, or from a file of one's own."""

import json
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from profiles.emulation import EMULATED, DeviceClass, EmulationError, EmulationScenario
from profiles.scenario import Scenario, ScenarioDevices, ScenarioLayer
from profiles.stated_device import Growth, StatedDevice
from profiles.stated_link import TracePoint
from profiles.variation import Spread
from runtime.addresses import own_path
from runtime.scenarios.recordings import RecordingError, read_recordings

STATED = ("paper", "heterogeneous")
"""Scenarios that come with the package and state what devices compute in a second."""
SHIPPED = (*STATED, *EMULATED)
REFERENCE_FLOP_PER_S = 10e9
"""What an emulation's slowdown of 1 is taken to be, and its server: a laptop's core at LeNet. Our
assumption: a simulation may not depend on the machine that it runs on."""


def load_emulation(reference: str, *, base_dir: Path) -> EmulationScenario:
    """Read a scenario of real devices, by its shipped name or from a .toml or .json file."""
    scenario = _read_emulation(reference, base_dir=base_dir)
    for each in scenario.devices:
        if any(point.from_round is not None for point in each.growth):
            raise EmulationError(
                f"scenario {reference}: growth of {each.name} states from_round, which only a "
                "simulation knows beforehand; state from_s, seconds since the device started"
            )
    return scenario


def _read_emulation(reference: str, *, base_dir: Path) -> EmulationScenario:
    if reference in EMULATED:
        name = f"emulation-{reference}.toml"
        text = files("profiles").joinpath("data", name).read_text(encoding="utf-8")
        return _parse_emulation(tomllib.loads(text), reference)
    path = own_path(reference, base_dir=base_dir)
    if path.suffix not in (".toml", ".json"):
        raise EmulationError(
            f"scenario {reference!r} is neither a .toml or .json file nor one of "
            f"{', '.join(EMULATED)}"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        tree = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise EmulationError(f"scenario {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise EmulationError(f"scenario {path} is not {path.suffix[1:]}: {error}") from error
    if _states(tree, "flop_per_s"):
        raise EmulationError(
            f"scenario {path} states flop_per_s, as simulations have it; of a device that computes "
            "on this machine state slowdown, seconds for each of this machine's"
        )
    try:
        tree = _with_recordings(tree, path.parent)
    except RecordingError as error:
        raise EmulationError(f"scenario {path}: {error}") from error
    return _parse_emulation(tree, str(path))


def _parse_emulation(tree: Any, where: str) -> EmulationScenario:  # noqa: ANN401 - not checked yet
    try:
        return EmulationScenario.model_validate(tree)
    except ValidationError as error:
        told = describe(error, _EMULATED_PARTS)
        raise EmulationError(f"scenario {where}: {told}") from error


class ScenarioError(ValueError):
    """A scenario that cannot be used; says where and what would be right."""


def load_scenario(reference: str, *, base_dir: Path = Path()) -> Scenario:
    """Read a shipped scenario by its name, or a .toml or .json file.

    A file may also be an emulation's (slowdowns instead of speeds).
    """
    if reference in STATED:
        folder = files("profiles").joinpath("data")
        (name,) = (
            n for n in (f"{reference}.json", f"{reference}.toml") if folder.joinpath(n).is_file()
        )
        return _parse(_decode(folder.joinpath(name).read_text(encoding="utf-8"), name), reference)
    if reference in EMULATED:
        return of_emulation(_read_emulation(reference, base_dir=base_dir), name=reference)
    path = own_path(reference, base_dir=base_dir)
    if path.suffix not in (".toml", ".json"):
        raise ScenarioError(
            f"scenario {reference!r} is neither a .toml or .json file nor one of "
            f"{', '.join(SHIPPED)}"
        )
    try:
        tree = _decode(path.read_text(encoding="utf-8-sig"), path.name)
    except OSError as error:
        raise ScenarioError(f"scenario {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"scenario {path} is not {path.suffix[1:]}: {error}") from error
    if _states(tree, "slowdown"):
        return of_emulation(_read_emulation(reference, base_dir=base_dir), name=path.stem)
    try:
        tree = _with_recordings(tree, path.parent)
    except RecordingError as error:
        raise ScenarioError(f"scenario {path}: {error}") from error
    if isinstance(tree, dict):
        tree = {"name": path.stem, **tree}
    return _parse(tree, str(path))


def _with_recordings(tree: Any, folder: Path) -> Any:  # noqa: ANN401 - not checked yet
    """Read what each class names as recorded; its rates are by default the recordings' means."""
    classes = tree.get("devices") if isinstance(tree, dict) else None
    if not isinstance(classes, list):
        return tree
    return tree | {"devices": [_with_recording(each, folder) for each in classes]}


def _with_recording(tree: Any, folder: Path) -> Any:  # noqa: ANN401 - not checked yet
    recorded = tree.get("recorded") if isinstance(tree, dict) else None
    if not isinstance(recorded, str):
        return tree
    recordings = read_recordings(own_path(recorded, base_dir=folder))
    means = [sum(each.mean_bps for each in way) / len(way) for way in zip(*recordings, strict=True)]
    rates = dict(zip(("up_bps", "down_bps"), means, strict=True))
    return rates | tree | {"recordings": recordings}


def of_emulation(emulation: EmulationScenario, *, name: str) -> Scenario:
    """Take an emulation's classes, with speeds for its slowdowns."""
    classes = tuple(
        ScenarioDevices(
            name=each.name,
            count=each.count,
            flop_per_s=REFERENCE_FLOP_PER_S / each.slowdown,
            **{name: getattr(each, name) for name in StatedDevice.model_fields},
        )
        for each in emulation.devices
    )
    return Scenario(
        name=name,
        note=f"{emulation.note} Slowdown 1 is taken as {REFERENCE_FLOP_PER_S / 1e9:g} GFLOP/s.",
        server_flop_per_s=REFERENCE_FLOP_PER_S,
        devices=classes,
    )


Parts = Mapping[str, type[BaseModel]]
"""Key to what stands there; the empty one to the whole."""
_EMULATED_PARTS: Parts = {
    "": EmulationScenario,
    "devices": DeviceClass,
    "trace": TracePoint,
    "growth": Growth,
}
_STATED_PARTS: Parts = {
    "": Scenario,
    "devices": ScenarioDevices,
    "trace": TracePoint,
    "growth": Growth,
    "layers": ScenarioLayer,
    "spread": Spread,
}


def describe(error: ValidationError, parts: Parts) -> str:
    """Name the first wrong place, its value, and what would be right."""
    found = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in found["loc"]) or "the file"
    if found["type"] == "extra_forbidden":
        return f"unknown key {place}; {_keys_at(found['loc'][:-1], parts)}"
    if found["type"] == "missing":
        return f"{place} is missing"
    message = found["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(found["input"], dict | list | tuple) else f" = {found['input']!r}"
    return f"{place}{shown}: {message[:1].lower()}{message[1:]}"


def _keys_at(place: tuple[int | str, ...], parts: Parts) -> str:
    """Say which keys there are in the part of a scenario at this place."""
    named = [part for part in place if isinstance(part, str)]
    model = parts.get(named[-1], parts[""]) if named else parts[""]
    keys = [key for key in model.model_fields if key != "recordings"]  # Read, not written.
    return f"the keys there are {', '.join(keys)}"


def _decode(text: str, name: str) -> Any:  # noqa: ANN401 - not checked yet
    return json.loads(text) if name.endswith(".json") else tomllib.loads(text)


def _states(tree: Any, key: str) -> bool:  # noqa: ANN401 - not checked yet
    """Whether a class of devices has this key, which tells simulations from emulations."""
    classes = tree.get("devices") if isinstance(tree, dict) else None
    if not isinstance(classes, list):
        return False
    return any(isinstance(each, dict) and key in each for each in classes)


def _parse(tree: Any, where: str) -> Scenario:  # noqa: ANN401 - not checked yet
    try:
        return Scenario.model_validate(tree)
    except ValidationError as error:
        raise ScenarioError(f"scenario {where}: {describe(error, _STATED_PARTS)}") from error
