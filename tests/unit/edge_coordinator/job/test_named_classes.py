"""A job whose classes have names: in its settings, its plans and its models."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors import safe_open

from device_agent.settings import published_labels
from edge_coordinator.devices.registry import DeviceRecord
from edge_coordinator.job.file import load_job
from edge_coordinator.job.job import Job
from edge_coordinator.job.prepare import prepare_job
from edge_coordinator.replanning.corrections import LearnedCorrections
from edge_coordinator.replanning.device_states import known_devices
from edge_coordinator.run.model.files import save_onnx, save_weights
from runtime.datasets.samples import Samples, make_data_set, make_samples
from runtime.errors import SettingsError
from runtime.models.cut_table import measure_cut_table
from runtime.models.load import load_network
from runtime.wire.published import DeviceProfile
from tests.stated_profiles import Stated, stated_profile
from tests.turn import READY, STATUS

MLP = load_network("mlp", {"input_shape": [4]}, seed=0)


CUTS = measure_cut_table(MLP, name="mlp", input_shape=(4,))


def _named(*labels: str) -> Samples:
    return make_samples(x=np.zeros((len(labels), 4)), y=np.array(labels), where="own")


def _numbers(*labels: int) -> Samples:
    return make_samples(x=np.zeros((len(labels), 4)), y=np.array(labels), where="own")


def _job(train: Samples, test: Samples, **overrides: object) -> Job:
    options = {"input_shape": [4], "num_classes": 3}
    settings = load_job(None, {"model.name": "mlp", "model.options": options, **overrides})
    data = make_data_set(train, test, name="own")
    return prepare_job(settings, run=0, base_dir=Path(), data=data)[0]


def test_a_job_takes_the_names_of_its_data_and_writes_them_down() -> None:
    job = _job(_named("b", "a", "c"), _named("c"))
    assert job.test is not None
    assert (job.classes, job.test.y.tolist()) == (("a", "b", "c"), [2])
    assert job.assignment.classes == ("a", "b", "c")
    assert not job.assignment.numbers_count_classes


def test_a_jobs_own_list_of_classes_is_their_order() -> None:
    job = _job(_named("b", "a"), _named("a"), **{"data.classes": ["c", " b ", "a"]})
    assert job.test is not None
    assert (job.classes, job.test.y.tolist()) == (("c", "b", "a"), [2])
    assert job.assignment.numbers_count_classes


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["a", "b", "c", "d"], "4 classes .a, b, c, d., but network mlp has 3 outputs"),
        (["a"], r"own\.npz has the class 'b', which the job does not know: its classes are a"),
        (["a", "a "], r"data\.classes.*: a class is named twice"),
        (["a", "x" * 300], r"data\.classes.* at most 256"),
    ],
)
def test_a_list_of_classes_that_does_not_fit_is_said(classes: list[str], words: str) -> None:
    overrides = {"data.classes": classes, "data.source": "npz:own.npz"}
    with pytest.raises(SettingsError, match=words):
        _job(_named("a", "b"), _named("a"), **overrides)


def test_a_label_that_is_an_id_is_named_before_anything_is_counted_by_it() -> None:
    ids = _numbers(0, 4_100_000_000_017)
    with pytest.raises(SettingsError, match=r"label 4100000000017 of sample 1 .*; .* 0 to 2: if"):
        _job(ids, _numbers(0))


def test_whole_numbers_saved_as_floats_are_told_from_targets() -> None:
    floats = make_samples(x=np.zeros((2, 4)), y=np.array([0.0, 1.0]), where="own")
    with pytest.raises(SettingsError, match="one whole number: save them as integers"):
        _job(floats, floats)


def test_published_counts_are_brought_into_the_order_of_the_job() -> None:
    labels = published_labels(_named("b", "c", "c"), "pi-1")
    assert labels == {"label_counts": (1, 2), "label_names": ("b", "c")}
    profile = stated_profile("pi-1", Stated()).model_copy(update=labels)
    record = DeviceRecord(STATUS, DeviceProfile.decode(profile.encode()), READY)
    known = known_devices(
        {"pi-1": record}, CUTS, LearnedCorrections(), shared_bps=None, classes=("c", "a", "b")
    )
    assert known[0].state.label_counts == (2, 0, 1)


def test_both_files_of_a_model_name_its_classes_and_are_the_same_again(tmp_path: Path) -> None:
    classes = ("été", "along")
    for name in ("a", "b"):
        save_weights(tmp_path / name, MLP, round_=3, classes=classes)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with safe_open(tmp_path / "a", framework="np") as file:
        assert json.loads(file.metadata()["classes"]) == list(classes)
        assert file.metadata()["round"] == "3"
        assert file.get_tensor("fc1.bias").tolist() == MLP.state_dict()["fc1.bias"].tolist()
    save_onnx(tmp_path / "a.onnx", MLP, (4,), round_=3, classes=classes)
    said = {each.key: each.value for each in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert (json.loads(said["classes"]), said["round"]) == (list(classes), "3")
