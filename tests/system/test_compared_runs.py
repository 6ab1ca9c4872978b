"""One run of a comparison: what its final accuracy is measured on."""

from pathlib import Path

import numpy as np
import pytest

from edge_coordinator.comparison.one_run import RunSpec, train_one
from edge_coordinator.comparison.results import TrainedRun
from edge_coordinator.job_file import load_job
from edge_coordinator.simulation.prepare import settings_for
from tests.builders import random_samples

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
    return train_one(RunSpec("cpsl", settings, scenario), base_dir=folder, on_round=lambda _: None)


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
