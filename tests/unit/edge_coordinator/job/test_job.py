"""A job is made ready once, and what does not fit together is said then."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edge_coordinator.job.file import load_job
from edge_coordinator.job.job import Job
from edge_coordinator.job.prepare import prepare_job
from edge_coordinator.replanning.task import make_task
from edge_coordinator.training.edge_model import EdgeModel
from runtime.datasets.samples import DataSet, Samples
from runtime.errors import SettingsError
from tests.builders import make_job
from tests.noise import Shape, random_samples, shards
from tests.sites import standing_after
from tests.turn import READY

IMAGE = (1, 28, 28)
TRAIN = random_samples(8, IMAGE, num_classes=10, seed=0)


def _prepare(test: Samples, **overrides: object) -> tuple[Job, EdgeModel]:
    settings = load_job(None, {"data.source": "npz:own.npz", **overrides})
    data = DataSet(train=TRAIN, test=test, num_classes=10, name="own")
    return prepare_job(settings, run=0, base_dir=Path(), data=data)


def test_a_test_label_beyond_the_networks_classes_is_named_even_where_few_are_evaluated() -> None:
    test = random_samples(4, IMAGE, num_classes=10, seed=1)
    test.y[3] = 12
    said = r"label 12 of sample 3 in the test set of npz:own.npz is out of range"
    with pytest.raises(SettingsError, match=said):
        _prepare(test, **{"evaluation.max_samples": 2})


def test_test_targets_that_are_no_classes_do_not_fit_a_network_that_classifies() -> None:
    whole = random_samples(4, IMAGE, num_classes=10, seed=1)
    targets = Samples(whole.stored, whole.y.astype(np.float32))
    with pytest.raises(SettingsError, match=r"labels of type float32 and shape \(4,\); with 10"):
        _prepare(targets)


def test_test_samples_of_another_source_have_the_shape_of_those_to_train_on(
    tmp_path: Path,
) -> None:
    shape: Shape = (1, 8, 8)
    small = random_samples(4, shape, num_classes=10, seed=1)
    np.savez(tmp_path / "small.npz", x=small.x, y=small.y)
    source = f"npz:{tmp_path}/small.npz"
    with pytest.raises(SettingsError, match=r"small.npz have the shape \(1, 8, 8\); .* \(1, 28"):
        _prepare(TRAIN, **{"data.test": source})


@pytest.mark.parametrize(("method", "loss_on_device"), [("fl", True), ("cpsl", False)])
def test_only_with_federated_averaging_the_loss_is_planned_on_the_devices(
    method: str, *, loss_on_device: bool
) -> None:
    asked = {"training.method": method, "plan.cut": "fc3", "plan.server_flop_per_s": 1e10}
    job, model = _prepare(TRAIN, **asked)
    task = make_task(job, model, ready=READY, num_devices=4)
    assert task.cut == len(job.layer_names)
    assert task.workload.loss_on_device == loss_on_device


@pytest.mark.parametrize(
    ("scores", "gained_in"),
    [([(0.9, 1.0), (0.9, 0.5), (0.8, 0.1)], 1), ([(None, 1.0), (None, 0.9), (None, 1.2)], 2)],
    ids=["of-accuracy", "of-loss"],
)
def test_a_job_is_over_after_so_many_evaluations_without_a_gain(
    scores: list[tuple[float | None, float | None]], gained_in: int
) -> None:
    patience = len(scores) - gained_in
    settings = {"plan.clusters": 1, "training.rounds": 9, "evaluation.patience": patience}
    job, _ = make_job(shards((40,), (1, 28, 28)), settings)
    standing, report = standing_after(*scores)
    said = job.why_over(report, standing)
    assert said == f"nothing gained since round {gained_in} (patience {patience})"
    earlier, report_before = standing_after(*scores[:-1])
    assert job.why_over(report_before, earlier) == ""


def test_what_a_micro_batch_takes_the_server_is_timed_where_there_may_be_several() -> None:
    for micro_batches, is_timed in ((1, False), (4, True), ("auto", True)):
        job, model = _prepare(TRAIN, **{"training.micro_batches": micro_batches})
        before = [each.clone() for each in model.network.parameters()]
        work = make_task(job, model, ready=READY, num_devices=2).workload
        assert (work.server_part_s > 0) == is_timed
        assert all(map(torch.equal, before, model.network.parameters()))


def test_layers_that_take_no_random_numbers_leave_a_micro_batch_unpriced() -> None:
    job, model = _prepare(TRAIN, **{"training.micro_batches": 4})
    *earlier, _, _ = model.network.parameters()
    with torch.no_grad():
        for parameter in earlier:
            parameter.fill_(torch.nan)
    assert make_task(job, model, ready=READY, num_devices=2).workload.server_part_s == 0
