"""Classes have names: one numbering for devices and test set, whatever each of them has."""

import json
import unicodedata
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from device_agent.settings import published_labels
from edge_coordinator.cli.tables.shards import show_shards
from edge_coordinator.devices.fitness import why_unfit
from edge_coordinator.job.file import load_job
from runtime.datasets.samples import DataSet, Samples, make_data_set, make_samples
from runtime.datasets.shard import make_shard
from runtime.datasets.sources import load_source
from runtime.errors import SettingsError
from runtime.wire.commands import Assignment, Ready
from tests.turn import ASSIGNMENT, READY

IN_ORDER = ASSIGNMENT.model_copy(update={"classes": ("along", "across", "round")})
NUMBERED = IN_ORDER.model_copy(update={"numbers_count_classes": True})


def _named(*labels: str) -> Samples:
    return make_samples(x=np.zeros((len(labels), 4)), y=np.array(labels), where="own")


def _numbers(*labels: int) -> Samples:
    return make_samples(x=np.zeros((len(labels), 4)), y=np.array(labels), where="own")


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


def test_no_table_is_made_of_labels_that_are_ids() -> None:
    ids = _numbers(0, 4_100_000_000_017)
    assert published_labels(ids, "pi-1") == {}
    said = StringIO()
    settings = load_job(None, {"devices.count": 2, "data.partition": "iid"})
    show_shards(Console(file=said, width=80), settings, make_data_set(ids, None, name="own"))
    assert said.getvalue() == "samples of 2 devices: 1, 1\n"


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
