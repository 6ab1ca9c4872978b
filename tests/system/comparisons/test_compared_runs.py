"""One run of a comparison: what its final accuracy is measured on."""

from pathlib import Path

import numpy as np
import pytest

from edge_coordinator.experiments.results import TrainedRun
from edge_coordinator.experiments.runs import RunSpec, train_one
from edge_coordinator.job.file import load_job
from edge_coordinator.simulation.prepare import settings_for
from tests.noise import random_samples

SHAPE = (1, 28, 28)


def _trained(folder: Path, test: str) -> TrainedRun:
    own = {
        "data.source": "npz:own.npz",
        "data.partition": "iid",
        "data.test": test,
        "devices.scenario": "uniform",
        "devices.count": 2,
        "training.rounds": 15,
        "evaluation.every": 15,
    }
    settings, scenario = settings_for(
        lambda defaults: load_job(None, own, defaults=defaults),
        base_dir=folder,
        from_file=False,
        say=print,
    )
    spec = RunSpec("cpsl", settings, scenario, is_pooled=False)
    return train_one(spec, base_dir=folder, on_round=lambda _: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    train = random_samples(80, SHAPE, num_classes=10, seed=1)
    test = random_samples(40, SHAPE, num_classes=10, seed=2)
    np.savez(tmp_path / "own.npz", x_train=train.x, y_train=train.y, x_test=test.x, y_test=test.y)
    # Of other patterns: whoever is tested on these learned nothing of them.
    np.savez(tmp_path / "other.npz", x_train=-test.x, y_train=(test.y + 5) % 10)
    return tmp_path


@pytest.mark.parametrize("test", ["source", "npz:other.npz", "devices"])
def test_the_final_accuracy_is_on_the_samples_that_the_rounds_are_tested_on(
    test: str, folder: Path
) -> None:
    run = _trained(folder, test)
    assert run.final_accuracy == run.rounds[-1].test_accuracy


def _central(folder: Path, *, is_pooled: bool, **own: object) -> TrainedRun:
    chosen = {
        "data.source": "npz:own.npz",
        "data.partition": "iid",
        "devices.scenario": "heterogeneous",
        "devices.count": 4,
        "plan.clusters": 2,
        "training.method": "cl",
        "training.rounds": 4,
        "training.local_epochs": 3,
        "evaluation.every": 1,
        **own,
    }
    settings, scenario = settings_for(
        lambda defaults: load_job(None, chosen, defaults=defaults),
        base_dir=folder,
        from_file=False,
        say=lambda _: None,
    )
    spec = RunSpec("cl", settings, scenario, is_pooled=is_pooled)
    return train_one(spec, base_dir=folder, on_round=lambda _: None)


def test_pooled_data_are_learned_as_on_one_machine_in_the_seconds_that_the_devices_upload(
    folder: Path,
) -> None:
    pooled = _central(folder, is_pooled=True)
    # One device that holds all is plain SGD, bit for bit: four devices' three steps are its twelve.
    one = _central(folder, is_pooled=False, **{"devices.count": 1, "training.local_epochs": 12})
    spread = _central(folder, is_pooled=False)
    assert [row.test_loss for row in pooled.rounds] == [row.test_loss for row in one.rounds]
    assert [row.test_loss for row in pooled.rounds] != [row.test_loss for row in spread.rounds]
    assert [row.elapsed_s for row in pooled.rounds] == [row.elapsed_s for row in spread.rounds]
    assert [row.phase_s for row in pooled.rounds] == [row.phase_s for row in spread.rounds]
    for ours, theirs in zip(pooled.rounds, spread.rounds, strict=True):
        assert ours.up_bytes == pytest.approx(theirs.up_bytes, rel=0.01)


def test_pooled_data_are_those_of_the_devices_that_take_part(folder: Path) -> None:
    fewer = _central(folder, is_pooled=True, **{"devices.exclude": ["dev-0"]})
    everyone = _central(folder, is_pooled=True)
    assert fewer.rounds[0].num_devices == 3
    assert fewer.rounds[-1].train_loss != everyone.rounds[-1].train_loss
