"""Classes have names: one numbering for devices and test set, whatever each of them has."""

import json
import unicodedata
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from rich.console import Console
from safetensors import safe_open

from device_agent.settings import published_labels
from edge_coordinator.cli.tables import show_shards
from edge_coordinator.devices.fitness import why_unfit
from edge_coordinator.devices.registry import DeviceRecord
from edge_coordinator.job.file import load_job
from edge_coordinator.job.job import Job
from edge_coordinator.job.prepare import prepare_job
from edge_coordinator.replanning.corrections import LearnedCorrections
from edge_coordinator.replanning.device_states import known_devices
from edge_coordinator.run.model.files import save_onnx, save_weights
from runtime.datasets.samples import DataSet, Samples, make_data_set, make_samples
from runtime.datasets.shard import make_shard
from runtime.datasets.sources import load_source
from runtime.errors import SettingsError
from runtime.models.cut_table import measure_cut_table
from runtime.models.load import load_network
from runtime.wire.commands import Assignment, Ready
from runtime.wire.published import DeviceProfile
from tests.stated_profiles import Stated, stated_profile
from tests.turn import ASSIGNMENT, READY, STATUS

MLP = load_network("mlp", {"input_shape": [4]}, seed=0)
CUTS = measure_cut_table(MLP, name="mlp", input_shape=(4,))

IN_ORDER = ASSIGNMENT.model_copy(update={"classes": ("along", "across", "round")})
NUMBERED = IN_ORDER.model_copy(update={"numbers_count_classes": True})


def _named(*labels: str) -> Samples:
    return make_samples(x=np.zeros((len(labels), 4)), y=np.array(labels), where="own")


def _numbers(*labels: int) -> Samples:
    return make_samples(x=np.zeros((len(labels), 4)), y=np.array(labels), where="own")


def _job(train: Samples, test: Samples, **overrides: object) -> Job:
    options = {"input_shape": [4], "num_classes": 3}
    settings = load_job(None, {"model.name": "mlp", "model.options": options, **overrides})
    data = make_data_set(train, test, name="own")
    return prepare_job(settings, run=0, base_dir=Path(), data=data)[0]


def test_devices_with_one_class_each_number_them_alike() -> None:
    shards = {name: make_shard(name, IN_ORDER, _named(name, name)) for name in ("across", "round")}
    assert [shard.packed.tolist() for shard in shards.values()] == [[1, 1], [2, 2]]


def test_a_class_that_the_job_does_not_know_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"device pi-1 has the class 'upwards', .* along, acr"):
        make_shard("pi-1", IN_ORDER, _named("along", "upwards"))
    with pytest.raises(SettingsError, match="is 'Along' meant to be 'along'"):
        make_shard("pi-1", IN_ORDER, _named("Along"))


def test_numbers_fit_names_only_where_the_job_lists_them() -> None:
    with pytest.raises(SettingsError, match=r"pi-1 has numbers for labels, .* data\.classes"):
        make_shard("pi-1", IN_ORDER, _numbers(0, 2))
    assert make_shard("pi-1", NUMBERED, _numbers(0, 2)).packed.tolist() == [0, 2]
    with pytest.raises(SettingsError, match="label 3 of sample 1 in device pi-1 is out of range"):
        make_shard("pi-1", NUMBERED, _numbers(0, 3))


def test_text_labels_are_equal_however_they_are_typed() -> None:
    composed = unicodedata.normalize("NFC", "été")
    typed = _named(composed, unicodedata.normalize("NFD", composed), f" {composed}\t", "ete")
    assert typed.class_names == ("ete", composed)
    assert typed.y.tolist() == [1, 1, 1, 0]


def test_text_may_be_of_any_type_that_holds_it() -> None:
    for y in (np.array([b"b", b"a"]), np.array(["b", "a"], dtype=object), np.array([["b"], ["a"]])):
        samples = make_samples(x=np.zeros((2, 4)), y=y, where="own")
        assert (samples.class_names, samples.y.tolist()) == (("a", "b"), [1, 0])


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["a", "  "], "label of sample 1 in own is empty"),
        (["a", None], "label of sample 1 in own is None; the others are text"),
        (["a", "b\0b"], "label of sample 1 in own is 'b.x00b'"),
        ([b"a", b"\xff"], "label of sample 1 in own is b'.xff'; text labels are UTF-8"),
    ],
)
def test_a_label_that_can_be_no_name_is_told_with_its_place(
    labels: list[object], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        make_samples(x=np.zeros((2, 4)), y=np.array(labels, dtype=object), where="own")


def test_both_parts_of_an_npz_file_have_one_numbering(tmp_path: Path) -> None:
    x = np.zeros((3, 2))
    np.savez(tmp_path / "a.npz", x_train=x, y_train=list("bca"), x_test=x, y_test=list("ccb"))
    data = load_source("npz:a.npz", base_dir=tmp_path)
    assert data.test is not None
    assert (data.num_classes, data.train.y.tolist()) == (3, [1, 2, 0])
    assert data.test.y.tolist() == [2, 2, 1]


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


def test_names_and_numbers_in_one_job_do_not_fit() -> None:
    named, numbered = _named("a", "b"), _numbers(0, 1)
    with pytest.raises(SettingsError, match="names and those of the other are numbers"):
        make_data_set(named, numbered, name="own")
    answer = Ready.model_validate({**READY.model_dump(), "class_names": ("a", "b")})
    assert "the labels of the test set are numbers" in why_unfit(
        answer, ASSIGNMENT, [], numbered=True
    )
    assert why_unfit(answer, ASSIGNMENT, [answer]) == ""
    assert 'as in ["a", "b"]' in why_unfit(READY, ASSIGNMENT, [answer])


def test_where_nobody_names_classes_messages_are_what_they_were() -> None:
    assert not {"classes", "numbers_count_classes"} & json.loads(ASSIGNMENT.encode()).keys()
    assert "class_names" not in json.loads(READY.encode())
    assert Assignment.decode(IN_ORDER.encode()) == IN_ORDER


def test_a_label_that_is_an_id_is_named_before_anything_is_counted_by_it() -> None:
    ids = _numbers(0, 4_100_000_000_017)
    with pytest.raises(SettingsError, match=r"label 4100000000017 of sample 1 .*; .* 0 to 2: if"):
        _job(ids, _numbers(0))


def test_whole_numbers_saved_as_floats_are_told_from_targets() -> None:
    floats = make_samples(x=np.zeros((2, 4)), y=np.array([0.0, 1.0]), where="own")
    with pytest.raises(SettingsError, match="one whole number: save them as integers"):
        _job(floats, floats)


def test_no_table_is_made_of_labels_that_are_ids() -> None:
    ids = _numbers(0, 4_100_000_000_017)
    assert published_labels(ids, "pi-1") == {}
    said = StringIO()
    settings = load_job(None, {"devices.count": 2, "data.partition": "iid"})
    show_shards(Console(file=said, width=80), settings, make_data_set(ids, None, name="own"))
    assert said.getvalue() == "samples of 2 devices: 1, 1\n"


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


def test_a_factory_may_name_classes_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_classes_for_tests.py").write_text(
        "import numpy as np\n"
        "from runtime.datasets.samples import DataSet, Samples\n"
        "def pets():\n"
        "    own = Samples(np.zeros((2, 4), 'f4'), np.array([0, 1]), class_names=('dog', 'cat'))\n"
        "    return DataSet(own, None, 2, 'pets')\n"
    )
    data: DataSet = load_source("own_classes_for_tests:pets", base_dir=tmp_path)
    assert data.train.class_names == ("dog", "cat")
