"""What a scenario states beside what a job says."""

from pathlib import Path

import pytest

from edge_coordinator.job.file import dump_job, load_job
from edge_coordinator.simulation.costs import job_defaults
from edge_coordinator.simulation.prepare import settings_for
from profiles.variation import Spread
from runtime.scenarios.files import load_scenario


def test_a_scenario_states_defaults_of_the_job_and_the_job_has_the_last_word() -> None:
    paper = load_scenario("paper")
    stated = job_defaults(paper, load_job(None, {"plan.mode": "by_hand"}))
    assert stated["devices.count"] == 30
    assert stated["plan.cut"] == "pool1"
    few = {"devices.count": 4, "training.batch_size": 8}
    job = load_job(None, few, defaults=job_defaults(paper, load_job(None, few)))
    assert (job.devices.count, job.plan.clusters) == (4, 4)
    assert (job.training.batch_size, job.training.local_epochs) == (8, 1)
    sized = load_job(None, {"plan.cluster_size": 3})
    assert "plan.clusters" not in job_defaults(paper, sized)


@pytest.mark.parametrize(("from_file", "num_devices"), [(True, 6), (False, 30)])
def test_a_job_file_is_not_overlaid_by_what_a_scenario_states_and_what_is_added_is_said(
    num_devices: int, *, from_file: bool
) -> None:
    said: list[str] = []
    settings, scenario = settings_for(
        lambda defaults: load_job(None, {}, defaults=defaults),
        base_dir=Path(),
        from_file=from_file,
        say=said.append,
    )
    assert settings.devices.count == num_devices
    assert settings.devices.scenario == scenario.name
    stated = "" if from_file else "; by scenario paper: training.local_epochs = 1, "
    assert f"the job names no scenario: taking {scenario.name}{stated}" in said[0]


def test_batteries_that_a_simulation_does_not_look_at_are_said(tmp_path: Path) -> None:
    text = "[[devices]]\nname='a'\nslowdown=1\nup_bps=1e6\ndown_bps=1e6\n"
    text += "trace=[{from_s=5, battery_fraction=0.1}]\n"
    (tmp_path / "own.toml").write_text(text, encoding="utf-8")
    said: list[str] = []
    settings_for(
        lambda defaults: load_job(None, {"devices.scenario": "own.toml"}, defaults=defaults),
        base_dir=tmp_path,
        from_file=True,
        say=said.append,
    )
    assert said[0].startswith("scenario own.toml has batteries or heat, which agents publish")


def test_budgets_that_a_simulation_does_not_keep_are_said() -> None:
    said: list[str] = []
    settings_for(
        lambda defaults: load_job(None, {"plan.byte_budgets": {"*": 1000}}, defaults=defaults),
        base_dir=Path(),
        from_file=True,
        say=said.append,
    )
    assert "plan.byte_budgets hold in real runs alone: in a simulation nobody rests" in said[0]


def test_a_spread_that_was_asked_for_is_still_there_when_the_job_is_read_again(
    tmp_path: Path,
) -> None:
    settings, scenario = settings_for(
        lambda defaults: load_job(None, {"devices.spread": 0.5}, defaults=defaults),
        base_dir=tmp_path,
        from_file=False,
        say=print,
    )
    path = tmp_path / "job.toml"
    path.write_text(dump_job(settings), encoding="utf-8")
    _, again = settings_for(
        lambda defaults: load_job(path, {}, defaults=defaults),
        base_dir=tmp_path,
        from_file=True,
        say=print,
    )
    assert again.spread == scenario.spread == Spread.between_rounds(0.5)
