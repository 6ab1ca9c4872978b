"""Devices that know different classes train one network, or are refused by name."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from edge_coordinator.job.file import load_job
from edge_coordinator.job.prepare import prepare_job
from edge_coordinator.run.directory import RunDirectory
from edge_coordinator.run.folder import write_job
from edge_coordinator.run.outcome import write_outcome
from edge_coordinator.run.results import Results
from runtime.bus.memory_bus import MemoryBroker
from runtime.datasets.samples import Samples, make_samples
from runtime.errors import SettingsError, root_cause
from tests.builders import run_job

CENTRES = {"along": -2.0, "across": 2.0, "upwards": 0.0}
SETTINGS: dict[str, object] = {
    "model.name": "mlp",
    "model.options": {"input_shape": [8], "num_classes": 2},
    "plan.mode": "by_hand",
    "plan.cut": "fc1",
    "plan.clusters": 1,
    "devices.count": 2,
    "training.rounds": 6,
}


def _named(*names: str) -> Samples:
    """Twenty samples of each class."""
    y = np.repeat(names, 20)
    centres = np.array([CENTRES[name] for name in y])[:, np.newaxis]
    noise = np.random.default_rng(len(y)).normal(0, 0.3, (len(y), 8))
    return make_samples(x=centres + noise, y=y, where="own")


async def _run(
    own: Mapping[str, Samples], folder: Path, **overrides: object
) -> tuple[RunDirectory, float | None]:
    """Train as a coordinator that sees no device's data; the last accuracy."""
    settings = load_job(None, SETTINGS | {f"data.{key}": v for key, v in overrides.items()})
    job, model = prepare_job(settings, run=7, base_dir=folder, data=None)
    write_job(folder, job.settings)
    directory = RunDirectory(folder)
    _, reports = await run_job(
        own, {}, broker=MemoryBroker(), prepared=(job, model), progress=directory
    )
    write_outcome(directory, job, model, Results(), ended="done", complete=False)
    return directory, reports[-1].test_accuracy


def _classes_of(folder: Path) -> tuple[list[str], list[str]]:
    """Names in the job that is left, and in the model."""
    with safe_open(folder / "model.safetensors", framework="np") as file:
        in_model: list[str] = json.loads(file.metadata()["classes"])
    return list(load_job(folder / "job.toml", {}).data.classes), in_model


async def test_devices_of_one_class_each_learn_both(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "test.npz", x=_named("along", "across").x, y=["along"] * 20 + ["across"] * 20
    )
    own = {"d0": _named("along"), "d1": _named("across")}
    _, accuracy = await _run(own, tmp_path, test="npz:test.npz")
    assert accuracy == 1.0
    assert _classes_of(tmp_path) == (["across", "along"], ["across", "along"])


@pytest.mark.parametrize("first", [("along", "across"), ("along",)])
async def test_devices_that_evaluate_need_no_list_whatever_each_knows(
    tmp_path: Path, first: tuple[str, ...]
) -> None:
    own = {"d0": _named(*first), "d1": _named("across")}
    _, accuracy = await _run(own, tmp_path, test="devices")
    assert accuracy == 1.0
    assert _classes_of(tmp_path) == (["across", "along"], ["across", "along"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test": "devices"}, r"3 classes .across, along, upwards., but network mlp has 2 outputs"),
        ({"test": "devices", "classes": ["along", "across"]}, "d1 has the class 'upwards', which"),
    ],
)
async def test_a_device_of_another_class_is_refused(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    own = {"d0": _named("across", "along"), "d1": _named("along", "upwards")}
    with pytest.raises(BaseExceptionGroup) as caught:
        await _run(own, tmp_path, **changes)
    assert isinstance(root_cause(caught.value), SettingsError)
    assert caught.group_contains(SettingsError, match=words)
