"""Metrics of each task, against their definitions, and which of two rounds is better by them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from device_agent.engines import numpy_training
from edge_coordinator.job.file import load_job
from edge_coordinator.job.standing import BEGINNING
from edge_coordinator.run.confusion import plot_confusion
from edge_coordinator.training.evaluation import evaluate_layers
from edge_coordinator.training.metrics import Metric, add, figures_of, load_metric, sums_of
from runtime.datasets.samples import Samples
from runtime.errors import SettingsError
from runtime.models.losses import BUILT_IN
from tests.sites import make_round

RANDOM = np.random.default_rng(0)
LOGITS = torch.from_numpy(RANDOM.normal(size=(90, 4)))


def _figures(outputs: torch.Tensor, labels: torch.Tensor, loss: str) -> dict[str, float]:
    """Of three batches of another size each."""
    parts = [(outputs[part], labels[part]) for part in (slice(20), slice(20, 50), slice(50, None))]
    return figures_of(add([sums_of(*part, BUILT_IN[loss]) for part in parts]))


def test_f1_of_classes_is_the_mean_of_each_class_by_itself() -> None:
    labels = torch.from_numpy(RANDOM.integers(0, 3, 90))  # Nobody is of the fourth.
    taken = LOGITS.argmax(1)
    each = [
        2
        * float(((taken == k) & (labels == k)).sum())
        / float((taken == k).sum() + (labels == k).sum())
        for k in range(4)
    ]
    figures = _figures(LOGITS, labels, "cross_entropy")
    assert list(figures) == ["accuracy", "f1"]
    assert figures["accuracy"] == pytest.approx(float((taken == labels).double().mean()))
    assert figures["f1"] == pytest.approx(np.mean(each))


def test_of_several_labels_f1_counts_them_all_and_exact_the_samples() -> None:
    labels = torch.from_numpy(RANDOM.integers(0, 2, (90, 4)))
    claimed = LOGITS > 0
    true, false = (claimed & (labels > 0)).sum(), (claimed & (labels == 0)).sum()
    missed = (~claimed & (labels > 0)).sum()
    figures = _figures(LOGITS, labels, "binary_cross_entropy")
    assert figures["f1"] == pytest.approx(float(2 * true / (2 * true + false + missed)))
    assert figures["exact"] == pytest.approx(
        float((claimed == (labels > 0)).all(1).double().mean())
    )


@pytest.mark.parametrize("shape", [(90,), (90, 1)])
def test_of_numbers_r2_compares_with_their_mean(shape: tuple[int, ...]) -> None:
    outputs, targets = LOGITS[:, :1], LOGITS[:, :1] + 0.1 * LOGITS[:, 1:2]
    error = outputs - targets
    figures = _figures(outputs, targets.reshape(shape), "mse")
    assert figures["mae"] == pytest.approx(float(error.abs().mean()))
    spread = float((targets - targets.mean()).square().sum())
    assert figures["r2"] == pytest.approx(1 - float(error.square().sum()) / spread)
    assert "r2" not in _figures(outputs, torch.ones(90), "mse")


def test_of_masks_iou_is_the_mean_over_the_classes_and_ignored_pixels_are_none() -> None:
    outputs = torch.from_numpy(RANDOM.normal(size=(90, 3, 2, 2)))
    labels = torch.from_numpy(RANDOM.integers(0, 3, (90, 2, 2)))
    labels[0, 0] = -100
    taken, counted = outputs.argmax(1), labels >= 0
    each = [
        float(((taken == k) & (labels == k)).sum())
        / float((((taken == k) | (labels == k)) & counted).sum())
        for k in range(3)
    ]
    assert _figures(outputs, labels, "cross_entropy")["iou"] == pytest.approx(np.mean(each))


def spread(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A metric of one's own, of all outputs at once."""
    return (outputs - labels).max() - (outputs - labels).min()


def test_a_metric_of_ones_own_sees_all_outputs_and_counts_first() -> None:
    x = RANDOM.normal(size=(600, 1)).astype(np.float32)
    metric = load_metric(f"{__name__}:spread", base_dir=Path())
    samples = Samples(x, np.zeros((600, 1), np.float32))
    evaluation = evaluate_layers(torch.nn.Identity(), samples, BUILT_IN["mse"], metric=metric)
    assert evaluation.metric == "spread"
    assert evaluation.figures["spread"] == pytest.approx(x.max() - x.min())
    with pytest.raises(SettingsError, match=r"metric .*:spread cannot take outputs of shape"):
        metric.of_own(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(SettingsError, match="no metric named 'auc'; there are auto, accuracy"):
        load_metric("auc", base_dir=Path())


class Kept:
    """What a metric of torchmetrics does: it keeps what it sees until it is told to forget."""

    higher_is_better = False

    def __init__(self) -> None:
        self.num_seen = 0

    def __call__(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        self.num_seen += len(outputs)
        return torch.tensor(self.num_seen)

    def reset(self) -> None:
        """Forget."""
        self.num_seen = 0


kept = Kept()


def test_a_metric_that_keeps_what_it_sees_begins_anew_in_each_evaluation() -> None:
    metric = load_metric(f"{__name__}:kept", base_dir=Path())
    outputs = torch.zeros(3, 2)
    assert [metric.of_own(outputs, outputs) for _ in range(2)] == [{"kept": 3.0}] * 2
    assert metric.lower_is_better


def test_the_best_round_and_the_target_follow_the_metric() -> None:
    standing = BEGINNING
    for number, error in enumerate((3.0, 1.0, 2.0), start=1):
        report = make_round(
            number, test_loss=1.0, metric="mae", test_metric=error, lower_is_better=True
        )
        standing = standing.after(report, least_gain=0.0)
    assert standing.best is not None
    assert (standing.best.round, standing.num_without_gain) == (2, 1)
    assert Metric("mae").lower_is_better
    assert load_job(None, {"evaluation.target": 2.5}).evaluation.may_stop_early


@pytest.mark.parametrize(
    ("name", "targets"),
    [("l1", RANDOM.normal(size=(6, 2))), ("binary_cross_entropy", np.eye(6, 2))],
)
def test_a_device_without_torch_has_the_loss_and_its_gradient(
    name: str, targets: np.ndarray
) -> None:
    outputs = (40 * RANDOM.normal(size=(6, 2))).astype(np.float32)
    tensor = torch.from_numpy(outputs).requires_grad_()
    loss = BUILT_IN[name](tensor, torch.from_numpy(targets))
    torch.autograd.backward(loss)
    by_numpy, gradient = numpy_training.load_loss(name)(outputs, targets.astype(np.float32))
    assert by_numpy == pytest.approx(loss.item(), rel=1e-5)
    assert tensor.grad is not None
    np.testing.assert_allclose(gradient, tensor.grad, rtol=1e-5, atol=1e-7)
    assert gradient.dtype == np.float32


def test_a_picture_shows_what_is_taken_for_what() -> None:
    assert plot_confusion(np.eye(3) * 5, ["a", "b", "c"], title="round 1").startswith(b"\x89PNG")
