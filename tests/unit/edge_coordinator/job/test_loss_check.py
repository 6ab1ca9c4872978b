"""A loss, its outputs and its labels are looked at before anything is trained on them."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from device_agent.engines.numpy_training import mean_squared_error
from edge_coordinator.devices.registry import Registry
from edge_coordinator.job.file import load_job
from edge_coordinator.job.labels import label_form
from edge_coordinator.job.loss_check import check_loss
from edge_coordinator.job.prepare import prepare_job
from edge_coordinator.job.settings import EvaluationSettings
from edge_coordinator.training.evaluation import evaluate_layers
from edge_coordinator.training.metrics import load_metric
from runtime.datasets.samples import DataSet, Samples, make_samples
from runtime.errors import SettingsError
from runtime.models.load import load_network, refused_cuts
from runtime.models.losses import BUILT_IN, Loss
from runtime.models.sequence import as_network
from runtime.wire.commands import Ready
from tests.turn import ASSIGNMENT, READY, STATUS

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
WHOLE = np.arange(8) % 2


def _check(loss: Loss, y: np.ndarray, *, outputs: int, **rules: object) -> None:
    network = as_network(nn.Sequential(nn.Linear(3, outputs)), name="own", input_shape=(3,))
    samples = make_samples(x=X, y=y, where="data")
    given = EvaluationSettings.model_validate(rules)
    metric = load_metric(given.metric, base_dir=Path())
    check_loss(network, loss, samples, name="own", metric=metric, rules=given)


def _binary(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(outputs[:, 0], labels.float())


@pytest.mark.parametrize(
    ("loss", "y", "outputs", "said"),
    [
        (BUILT_IN["mse"], np.ones((8, 2), np.float32), 1, "as many outputs as"),
        (BUILT_IN["mse"], np.ones(8, np.float32), 2, "as many outputs as"),
        (
            BUILT_IN["cross_entropy"],
            np.ones((8, 4), np.int64),
            4,
            r"cannot take outputs of shape (2, 4)",
        ),
        (lambda o, y: functional.cross_entropy(o, y).item(), WHOLE, 2, "returned a float"),
        (lambda o, y: functional.cross_entropy(o, y, reduction="none"), WHOLE, 2, "shape (2,)"),
        (lambda o, y: functional.cross_entropy(o, y) * 1j, WHOLE, 2, "returned a complex number"),
        (lambda _, y: y.float().mean(), WHOLE, 2, "does not depend on the outputs"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused_in_a_sentence(
    loss: Loss, y: np.ndarray, outputs: int, said: str
) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        _check(loss, y, outputs=outputs)


def test_targets_far_from_one_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    for far in (1.0, 600.0):
        _check(BUILT_IN["mse"], np.linspace(-far, far, 8, dtype=np.float32), outputs=1)
    assert len(caplog.messages) == 1
    assert "targets go up to 600, and the loss begins at" in caplog.text


def test_an_accuracy_to_reach_needs_outputs_that_have_one() -> None:
    _check(_binary, WHOLE, outputs=1)
    with pytest.raises(SettingsError, match=r"evaluation\.target_accuracy"):
        _check(_binary, WHOLE, outputs=1, target_accuracy=0.9)
    with pytest.raises(SettingsError, match=r"evaluation\.metric: .* have r2, mae, not f1"):
        _check(BUILT_IN["mse"], np.ones(8, np.float32), outputs=1, metric="f1")
    _check(BUILT_IN["mse"], np.ones(8, np.float32), outputs=1, metric="mae", target=0.1)
    _check(BUILT_IN["mse"], np.ones(8, np.float32), outputs=1, metric="mae", target=3)
    with pytest.raises(SettingsError, match=r"target is 95: accuracy is 1 at the most"):
        _check(BUILT_IN["cross_entropy"], WHOLE, outputs=2, target=95)


@pytest.mark.parametrize("shape", [(8,), (8, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_mse_compares_sample_by_sample_whatever_the_targets_are_shaped_like(
    shape: tuple[int, ...], dtype: type
) -> None:
    outputs = X[:, :1]
    targets: np.ndarray = np.arange(8).astype(dtype).reshape(shape)
    expected = np.mean((outputs[:, 0] - np.arange(8)) ** 2)
    by_torch = BUILT_IN["mse"](torch.from_numpy(outputs), torch.from_numpy(targets))
    by_numpy, gradient = mean_squared_error(outputs, targets)
    assert by_torch.item() == pytest.approx(expected, rel=1e-5)
    assert by_numpy == pytest.approx(expected, rel=1e-5)
    assert gradient.shape == outputs.shape


@pytest.mark.parametrize(
    ("loss", "y", "outputs"),
    [
        (_binary, WHOLE, 1),
        (lambda o, y: functional.mse_loss(o, y.float()), np.stack([WHOLE] * 4, axis=1), 4),
    ],
)
def test_no_accuracy_is_shown_of_outputs_that_have_none(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], y: np.ndarray, outputs: int
) -> None:
    evaluation = evaluate_layers(nn.Linear(3, outputs), make_samples(x=X, y=y, where="data"), loss)
    assert evaluation.accuracy is None
    assert np.isfinite(evaluation.loss)


class _Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.double()


def test_a_cut_at_which_smashed_data_would_be_no_float32_is_refused_by_its_layer() -> None:
    layers = nn.Sequential(nn.Linear(3, 2), _Double(), nn.Linear(2, 2).double())
    refused = refused_cuts(as_network(layers, name="own", input_shape=(3,)), (3,))
    assert sorted(refused) == [2, 3]
    assert "float64" in refused[2]


def lazy() -> nn.Module:
    """Weights that are drawn when the first sample passes."""
    return nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2))


def test_equal_seeds_give_equal_weights_where_layers_are_lazy() -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        network = load_network(f"{__name__}:lazy", {}, seed=seed, sample_shape=(3,))
        return list(network.state_dict().values())

    torch.manual_seed(1)
    first = weights(5)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, weights(5), strict=True))
    assert not torch.equal(first[0], weights(6)[0])


def _ready(**changes: object) -> Ready:
    return Ready.model_validate({**READY.model_dump(), **changes})


@pytest.mark.parametrize(
    ("loss", "outputs", "test", "fit", "unfit"),
    [
        ("mse", 3, "devices", {"label_shape": (3,)}, {"label_shape": (4,)}),
        ("mse", 1, "devices", {"label_shape": ()}, {"label_shape": (2,)}),
        ("mse", 1, "devices", {"label_shape": (1,)}, {"label_shape": (1, 2)}),
        (
            f"{__name__}:pinball",
            1,
            "source",
            {},
            {"label_shape": (1,)},
        ),
    ],
)
def test_the_job_says_how_wide_a_label_is_whoever_comes_first(
    loss: str, outputs: int, test: str, fit: dict[str, object], unfit: dict[str, object]
) -> None:
    changes = {
        "training.loss": loss,
        "data.test": test,
        "plan.clusters": 1,
        "model.name": "mlp",
        "model.options": {"num_classes": outputs},
    }
    own = Samples(np.zeros((40, 1, 28, 28), dtype=np.float32), np.zeros(40, dtype=np.float32))
    data = DataSet(train=own, test=own, num_classes=None, name="noise")
    job, _ = prepare_job(load_job(None, changes), run=7, base_dir=Path(), data=data)
    any_labels = ASSIGNMENT.model_copy(update={"num_classes": None})
    registry = Registry(assignment=any_labels, labels=label_form(job))
    for device in ("liar", "honest"):
        registry.note_status(device, STATUS)
    assert "the job's are" in registry.note_ready("liar", _ready(label_dtype="<f4", **unfit))
    assert registry.note_ready("honest", _ready(label_dtype="<f4", **fit)) == ""


def pinball(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A loss of one's own."""
    return (outputs[:, 0] - targets).abs().mean()
