"""The devices of a simulation: what each is does not depend on who else takes part."""

from pathlib import Path

import pytest

from edge_coordinator.comparison.studies import setting_of
from edge_coordinator.job_file import load_job
from edge_coordinator.local_agents import device_names
from edge_coordinator.simulation.prepare import Prepared, prepare_simulation, settings_for
from runtime.datasets.samples import DataSet
from runtime.errors import SettingsError
from tests.builders import random_samples


def _prepared(exclude: list[str]) -> Prepared:
    overrides = {
        "devices.scenario": "heterogeneous",
        "devices.exclude": exclude,
        "data.partition": "iid",
        "plan.clusters": 2,
    }
    settings, scenario = settings_for(
        lambda defaults: load_job(None, overrides, defaults=defaults), base_dir=Path()
    )
    test = random_samples(60, (1, 28, 28), num_classes=10, seed=1)
    data = DataSet(train=test, test=test, num_classes=10, name="noise")
    return prepare_simulation(settings, scenario, data, run=7, base_dir=Path())


def test_excluding_devices_changes_nothing_of_those_that_are_left() -> None:
    everyone = _prepared([]).simulation.world.states(1, elapsed_s=0.0)
    rest = _prepared(device_names(30)[:10])
    states = rest.simulation.world.states(1, elapsed_s=0.0)
    assert [state.device for state in states] == device_names(30)[10:]
    assert [state.link for state in states] == [state.link for state in everyone[10:]]
    assert rest.simulation.num_devices == 20


def test_a_comparison_studies_the_devices_that_train() -> None:
    setting = setting_of(_prepared(device_names(30)[:10]))
    assert setting.chosen == tuple(range(10, 30))


def test_a_job_that_excludes_everybody_is_one_sentence() -> None:
    with pytest.raises(SettingsError, match=r"devices\.exclude leaves none of 30 devices"):
        _prepared(device_names(30))
