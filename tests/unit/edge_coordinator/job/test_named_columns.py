"""A job knows the columns of its tables, and so do the files of its model."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors import safe_open

from edge_coordinator.job.file import dump_job, load_job
from edge_coordinator.job.job import Job
from edge_coordinator.job.prepare import prepare_job
from edge_coordinator.run.model.files import save_onnx, save_weights
from edge_coordinator.run.model.saved import load_saved
from runtime.datasets.samples import DataSet, Samples
from runtime.errors import SettingsError
from runtime.inference.half import HalfInfo
from runtime.models.load import load_network

NAMES = ("area", "rooms")
OPTIONS = {"input_shape": [2], "num_classes": 2, "hidden": [3]}
TABLE = Samples(np.ones((40, 2), np.float32), np.arange(40) % 2, feature_names=NAMES)


def _job(settings: Mapping[str, object], test: Samples = TABLE) -> Job:
    data = DataSet(train=TABLE, test=test, num_classes=2, name="table")
    given = {"model.name": "mlp", "model.options": OPTIONS, "devices.count": 2, **settings}
    return prepare_job(load_job(None, given), run=0, base_dir=Path(), data=data)[0]


def test_the_columns_of_the_data_are_written_down_with_the_job(tmp_path: Path) -> None:
    job = _job({})
    assert job.settings.data.features == NAMES
    (tmp_path / "job.toml").write_text(dump_job(job.settings), encoding="utf-8")
    assert load_job(tmp_path / "job.toml", {}).data.features == NAMES
    assert _job({"data.features": NAMES}).settings.data.features == NAMES


def test_data_of_other_columns_than_the_job_has_are_refused() -> None:
    with pytest.raises(SettingsError, match="its 2 features are area, rooms, those of the job"):
        _job({"data.features": ["rooms", "area"]})
    with pytest.raises(SettingsError, match=r"the test set of .* its 2 features are area, age"):
        _job({}, replace(TABLE, feature_names=("area", "age")))


def test_both_files_of_a_model_and_its_halves_name_the_columns(tmp_path: Path) -> None:
    settings, network = _job({}).settings, load_network("mlp", OPTIONS, seed=0)
    path = tmp_path / "model.safetensors"
    save_weights(path, network, round_=3, features=NAMES)
    with safe_open(path, framework="np") as file:
        assert json.loads(file.metadata()["features"]) == list(NAMES)
    save_onnx(tmp_path / "a.onnx", network, (2,), round_=3, features=NAMES)
    said = {each.key: each.value for each in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert json.loads(said["features"]) == list(NAMES)
    saved = load_saved(path, settings, base_dir=Path(), data_shape=None)
    words = saved.info(1).words("device")
    assert HalfInfo.read(words, where="it", side="device").features == NAMES
