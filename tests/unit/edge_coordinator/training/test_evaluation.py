"""Evaluating the joint network: the same bits however many threads share it."""

import numpy as np
import pytest
import torch
from torch import nn

from edge_coordinator.job.standing import BEGINNING
from edge_coordinator.training.evaluation import evaluate_layers, evaluation_of, judged
from edge_coordinator.training.metrics import Metric
from runtime.datasets.samples import Samples
from runtime.models.losses import load_loss
from tests.sites import make_round


class Noting(nn.Module):
    """Scales by what it noted in the same forward, and so is no module for two threads."""

    def __init__(self, *, keeps_graph: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.notes: list[torch.Tensor] = []
        if keeps_graph:
            self.noted = self.weight * 2  # Which cannot be copied.

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.notes.append(x.abs().amax())
        return x / self.notes.pop() * self.weight


def _samples() -> Samples:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2100, 3), dtype=np.uint8)
    return Samples(images, random.integers(0, 3, 2100), scale=1 / 255)


@pytest.mark.parametrize("keeps_graph", [False, True])
def test_an_evaluation_is_the_same_on_any_number_of_processors(*, keeps_graph: bool) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Linear(3, 50), nn.ReLU(), nn.Linear(50, 3), Noting(keeps_graph=keeps_graph)
    )
    loss, test = load_loss("cross_entropy"), _samples()
    alone = evaluate_layers(layers, test, loss, most_workers=1)
    together = evaluate_layers(layers, test, loss, most_workers=4)
    assert alone.reported() == together.reported()
    assert alone.accuracy is not None
    assert 0.1 < alone.accuracy < 0.6


def test_labels_that_are_no_classes_have_a_loss_and_no_accuracy() -> None:
    samples = Samples(np.ones((600, 2), np.float32), np.zeros((600, 2), np.float32))
    evaluation = evaluate_layers(nn.Sequential(nn.ReLU()), samples, load_loss("mse"))
    assert evaluation.loss == pytest.approx(1.0)
    assert evaluation.accuracy is None


def sometimes(outputs: torch.Tensor, _: torch.Tensor) -> float:
    """Give a number of some outputs alone."""
    return float("nan") if outputs.mean() > 0 else 0.25


def test_a_round_whose_own_metric_is_no_number_is_worse_than_any_that_has_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metric, labels = Metric(f"{__name__}:sometimes", sometimes), torch.tensor([0, 0])
    loss, standing = load_loss("cross_entropy"), BEGINNING
    for round_, outputs in enumerate(([-4.0, -5.0], [4.0, 3.0]), start=1):
        batch = judged(torch.tensor([outputs, outputs]), labels, loss, metric)
        evaluation = evaluation_of([batch], metric)
        standing = standing.after(make_round(round_, **evaluation.reported()), least_gain=0.0)
    assert evaluation.accuracy == 1.0
    assert standing.best is not None
    assert (standing.best.round, standing.best.test_metric) == (1, 0.25)
    assert "sometimes gave nan: this evaluation has no metric, and is worse" in caplog.text
