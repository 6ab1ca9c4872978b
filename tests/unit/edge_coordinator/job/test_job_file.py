"""Reading a job: the documented file is the truth, and every mistake is one sentence."""

import re
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from edge_coordinator.job.file import dump_job, load_job
from edge_coordinator.job.settings import JobSettings
from runtime.errors import SettingsError
from runtime.service.arguments import parse_assignment
from tests.root import ROOT

DOCUMENTED = ROOT / "docs" / "job.toml"


def test_the_documented_file_holds_every_key_and_its_default() -> None:
    assert load_job(DOCUMENTED, {}) == load_job(None, {})
    text = DOCUMENTED.read_text(encoding="utf-8")
    # A line that is left out by default says its key, and is a comment that becomes the key.
    lines = [re.sub(r"^# (?=\[?[a-z_.]+(\]$| = ))", "", line) for line in text.splitlines()]
    documented, known = _keys_of(tomllib.loads("\n".join(lines))), _keys_of_settings(JobSettings)
    assert documented <= known
    unsaid = known - documented
    assert {key.rpartition(".")[0] for key in unsaid} <= {"training.device_optimizer"}
    assert {key.replace("device_", "server_") for key in unsaid} <= documented


def _keys_of(table: Mapping[str, object], *, at: str = "") -> set[str]:
    keys: set[str] = set()
    for name, value in table.items():
        if isinstance(value, dict) and value:
            keys |= _keys_of(value, at=f"{at}{name}.")
        else:
            keys.add(f"{at}{name}")
    return keys


def _keys_of_settings(settings: type[BaseModel], *, at: str = "") -> set[str]:
    keys: set[str] = set()
    for name, field in settings.model_fields.items():
        kinds = [field.annotation, *get_args(field.annotation)]
        parts = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        keys |= _keys_of_settings(parts[0], at=f"{at}{name}.") if parts else {f"{at}{name}"}
    return keys


def test_a_run_job_reads_back_as_the_same(tmp_path: Path) -> None:
    options = {"width": 2, "input_shape": {"ids": [128], "age": []}, "kernels": [[3, 3], [0.5]]}
    job = load_job(None, {"training.method": "sl", "plan.cut": 3, "model.options": options})
    path = tmp_path / "job.toml"
    path.write_text(dump_job(job), encoding="utf-8")
    assert load_job(path, {}) == job


def test_a_password_does_not_reach_the_run_directory() -> None:
    job = load_job(None, {"broker.url": "mqtt://me:secret@edge:1883"})
    assert "secret" not in dump_job(job)
    assert "mqtt://me@edge:1883" in dump_job(job)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"training.batchsize": 3}, "unknown key training.batchsize; did you mean 'batch_size'?"),
        ({"training.batch_size": 0}, "training.batch_size = 0: input should be greater than"),
        ({"training.method": "x"}, "'cpsl', 'sl', 'fl' or 'cl'"),
        ({"plan.clusters": 2, "plan.cluster_size": 2}, "give clusters or cluster_size, not both"),
        ({"seed.x": 2}, "seed"),
        ({"training.rounds": True}, "training.rounds = True: input should be a number, not true"),
        ({"plan.cut": True}, "plan.cut = True: input should be a number, not true"),
        ({"training.class_weights": [-1, 1]}, "training.class_weights.0 = -1: input should be gr"),
        ({"training.class_weights": [0, 0]}, "class_weights are all 0"),
        ({"training.micro_batches": 1000}, "training.micro_batches = 1000: input should be less"),
        ({"training.micro_batches": 0}, "greater than or equal to 1, or 'auto'"),
        (
            {"training.phi": 1.5},
            "training.phi = 1.5: input should be less than or equal to 1, or 'auto'",
        ),
        (
            {"plan.cuts": "by_devic"},
            "plan.cuts = 'by_devic': input should be a table, or 'by_device'",
        ),
        ({"plan.power": {"a": {"idle_w": -1}}}, "plan.power.a.idle_w = -1: input should be gr"),
        (
            {"plan.power": {"a": 3}},
            "plan.power.a = 3: input should be 'raspberry-pi-4' or 'laptop', or a t",
        ),
        ({"data.features": 3}, "data.features = 3: input should be a list"),
        ({"server_threads": 100_000}, "server_threads = 100000: input should be less than"),
        (
            {"model.options": {"hidden": [8] * 101}},
            "model.options: hidden is too large: of lists and tables each has at most 100 values",
        ),
        (
            {"model.options": {"since": {"day": date(2026, 1, 1)}}},
            "model.options: since has datetime.date(2026, 1, 1); what an option may be is true or",
        ),
    ],
)
def test_a_mistake_names_the_key_the_value_and_what_is_allowed(
    overrides: dict[str, object], sentence: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_job(None, overrides)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_nests_beyond_reading_is_told(tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text(f"a = {'[' * 5000}{']' * 5000}")
    with pytest.raises(SettingsError, match=r"deep\.toml nests lists or tables too deep"):
        load_job(tmp_path / "deep.toml", {})


def test_what_was_written_for_one_way_of_planning_gives_way_to_a_flag_for_another(
    tmp_path: Path,
) -> None:
    path = tmp_path / "job.toml"
    path.write_text(dump_job(load_job(None, {})), encoding="utf-8")
    by_hand = load_job(path, {"plan.mode": "by_hand"}).plan
    assert (by_hand.cut, by_hand.grouping) == ("pool1", "by_id")
    assert load_job(path, {"plan.mode": "by_hand", "plan.cut": "conv2"}).plan.cut == "conv2"
    assert load_job(path, {"plan.cluster_size": 3}).plan.clusters is None
    path.write_text(dump_job(load_job(None, {"plan.mode": "by_hand", "plan.cut": "conv2"})))
    assert load_job(path, {"plan.mode": "by_hand"}).plan.cut == "conv2"
    assert load_job(path, {"plan.mode": "auto"}).plan.cut == "auto"


def test_a_run_names_what_has_no_value_and_writes_down_the_rest() -> None:
    text = dump_job(load_job(None, {"devices.count": 1}))
    assert "clusters = 1" in text
    without = [line.split(":")[0] for line in text.splitlines() if line.startswith("# ")]
    assert "# training.device_optimizer" in without
    assert "# plan.clusters" not in without


def test_a_value_on_the_command_line_is_toml_or_else_text() -> None:
    assert parse_assignment("a.b=[1, 2]") == ("a.b", [1, 2])
    assert parse_assignment("plan.clusters=none") == ("plan.clusters", None)
    assert parse_assignment("plan.cut=pool1") == ("plan.cut", "pool1")
    with pytest.raises(SettingsError, match="KEY=VALUE"):
        parse_assignment("rounds")
