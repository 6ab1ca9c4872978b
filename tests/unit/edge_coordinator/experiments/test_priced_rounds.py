"""A recorded run priced under other plans, by what it was planned by itself."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from edge_coordinator.devices.registry import DeviceRecord
from edge_coordinator.experiments.priced_rounds import price_run, would_have_taken_s
from edge_coordinator.experiments.show_priced import priced_document
from edge_coordinator.job.job import Job
from edge_coordinator.replanning.planner import PlannedRound, Planner
from edge_coordinator.replanning.report import plan_report
from edge_coordinator.replanning.task import job_cut_table, planning_task
from edge_coordinator.run.directory import RunDirectory
from edge_coordinator.run.events import RoundDone, RoundPlanned
from edge_coordinator.run.plan_bases import BASES, read_bases
from edge_coordinator.training.edge_model import EdgeModel
from profiles.device import ComputeState
from runtime.errors import SettingsError
from runtime.wire.commands import Ready
from runtime.wire.published import DeviceStatus
from tests.builders import make_job
from tests.noise import shards
from tests.sites import make_round
from tests.stated_profiles import Stated, stated_profile

NUM_ROUNDS = 3
READY = Ready(run=1, num_samples=40, num_held_out=0, label_dtype="<i8", label_shape=())


def _job(**changes: object) -> tuple[Job, EdgeModel]:
    given = {"plan.mode": "auto", "plan.clusters": 2, "training.batch_size": 8}
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return make_job(shards((40,) * 4, (1, 28, 28)), given | named)


def _records(round_: int) -> dict[str, DeviceRecord]:
    """Two fast devices and two slow ones; one has a thinner link in each round."""
    stated = {f"d{n}": Stated(layer_s=1e-5 if n < 2 else 4e-5, bps=1e7) for n in range(4)}
    stated["d3"] = Stated(layer_s=4e-5, bps=1e7 / round_)
    return {
        device: DeviceRecord(
            DeviceStatus(state="online", session=device, since_unix_s=0.0),
            stated_profile(device, each),
            READY,
        )
        for device, each in stated.items()
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was resumed before its last round, which each time took twice as predicted."""
    path = tmp_path_factory.mktemp("run")
    job, model = _job(plan__cut="pool1")
    for rounds in (range(1, NUM_ROUNDS), range(NUM_ROUNDS, NUM_ROUNDS + 1)):
        directory = RunDirectory(path)
        for round_, planned in _planned(job, model, rounds).items():
            report = plan_report(job, round_, planned, barred={})
            directory.tell(RoundPlanned(report, NUM_ROUNDS, planned.basis))
            predicted_s = planned.plan.predicted_s
            assert predicted_s is not None
            took = make_round(round_, predicted_round_s=predicted_s, round_s=2 * predicted_s)
            directory.tell(RoundDone(took))
    return path


def _planned(job: Job, model: EdgeModel, rounds: range) -> Mapping[int, PlannedRound]:
    cuts = job_cut_table(job, model)
    server = ComputeState.of_server(cuts, forward_flop_per_s=1e10, backward_flop_per_s=1e10)
    speed = {"server": server, "server_device_s": 1e-4, "server_part_s": 0.0, "label_bits": 64.0}
    planner = Planner(planning_task(job, cuts, num_devices=4, **speed))  # type: ignore[arg-type]
    return {round_: planner.plan(round_, _records(round_)) for round_ in rounds}


def test_a_run_under_its_own_settings_is_priced_as_it_was_planned(run: Path) -> None:
    job, model = _job(plan__cut="pool1")
    rounds = price_run(run, job, model)
    assert [each.round for each in rounds] == [1, 2, 3]
    for each, planned in zip(rounds, _planned(job, model, range(1, 4)).values(), strict=True):
        assert each.plan is not None
        assert each.plan.predicted_s == pytest.approx(each.predicted_s, rel=1e-5)
        assert [c.devices for c in each.plan.clusters] == [c.devices for c in planned.plan.clusters]
    assert would_have_taken_s(rounds) == pytest.approx(sum(each.took_s for each in rounds))


@pytest.mark.parametrize(
    "changes", [{"plan__clusters": 1}, {"plan__cut": "conv1"}, {"codec__name": "int8"}]
)
def test_another_setting_is_priced_as_a_run_with_it_would_have_been_planned(
    run: Path, changes: dict[str, object]
) -> None:
    job, model = _job(**{"plan__cut": "pool1"} | changes)
    rounds = price_run(run, job, model)
    expected_s = [each.plan.predicted_s for each in _planned(job, model, range(1, 4)).values()]
    priced_s = [each.plan.predicted_s if each.plan else None for each in rounds]
    assert priced_s == pytest.approx(expected_s, rel=1e-5)
    assert priced_s != pytest.approx([each.predicted_s for each in rounds], rel=0.01)
    document = priced_document(rounds, job)
    assert json.loads(json.dumps(document))["priced_s"] == pytest.approx(sum(expected_s))  # type: ignore[arg-type]
    # Each round took twice what its plan said; so it would have under the other.
    assert document["would_have_taken_s"] == pytest.approx(2 * sum(expected_s))  # type: ignore[arg-type]


def test_the_cut_of_a_run_may_be_given_by_hand_or_chosen(run: Path) -> None:
    by_hand = price_run(run, *_job(plan__mode="by_hand", plan__cut="conv2"))
    assert [each.plan.cut if each.plan else None for each in by_hand] == [4, 4, 4]
    chosen = price_run(run, *_job())
    for each in chosen:
        assert each.plan is not None
        assert each.plan.alternatives is not None
        assert each.plan.alternatives.cuts


def test_of_a_device_that_has_not_changed_little_is_written(run: Path) -> None:
    first, second, _ = map(json.loads, (run / BASES).read_text().splitlines())
    assert second["devices"]["d0"] is second["server"] is None
    assert second["devices"]["d3"]["link"]["up_bps"] == 5e6
    assert None not in first["devices"].values()
    states = read_bases(run)[1].states
    assert [state.device for state in states] == ["d0", "d1", "d2", "d3"]


def test_what_cannot_be_priced_is_said_in_a_sentence(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="of a network of 12 layers, mlp has 6"):
        price_run(run, *_job(model__name="mlp"))
    rounds = tmp_path / "rounds.jsonl"
    rounds.write_text((run / "rounds.jsonl").read_text())
    with pytest.raises(SettingsError, match=r"holds no profiles\.jsonl: its rounds were not"):
        price_run(tmp_path, *_job())
    (tmp_path / BASES).write_text("{}\n")
    with pytest.raises(SettingsError, match=r"profiles\.jsonl cannot be read as what plans"):
        price_run(tmp_path, *_job())
    rounds.write_text(rounds.read_text().replace('"clock": "wall"', '"clock": "virtual"'))
    with pytest.raises(SettingsError, match="was simulated, so nothing was measured"):
        price_run(tmp_path, *_job())
