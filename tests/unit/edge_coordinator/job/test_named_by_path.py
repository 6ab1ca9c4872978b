"""What people name by path and is not what was meant: taken where it can be, else one sentence."""

from pathlib import Path

import pytest
import torch
from torch import nn

from edge_coordinator.job.job import own_stop
from edge_coordinator.job.standing import BEGINNING
from edge_coordinator.training.metrics import load_metric
from runtime.errors import SettingsError
from runtime.models.load import load_network
from runtime.models.losses import load_loss
from tests.sites import make_round

HERE = Path()
made = nn.Linear(2, 2)


def agrees(*_: object) -> bool:
    """Say no more than that it is enough."""
    return True


def looks_up(*_: object) -> str:
    """Ask for what is not there."""
    places: dict[str, str] = {}
    return places["nowhere"]


def figures(*_: object) -> dict[str, float]:
    """Give several figures at once."""
    return {"a": 1.0}


def test_a_rule_that_says_true_is_named_and_one_that_fails_says_where() -> None:
    stop, fails = (own_stop(f"{__name__}:{name}", base_dir=HERE) for name in ("agrees", "looks_up"))
    assert stop is not None
    assert fails is not None
    assert stop(make_round(1), BEGINNING) == f"by {__name__}:agrees"
    with pytest.raises(SettingsError, match=r"KeyError: 'nowhere' \(.*by_path\.py, line \d+"):
        fails(make_round(1), BEGINNING)


def test_a_metric_that_is_no_number_is_told_so() -> None:
    with pytest.raises(SettingsError, match=r"figures returned a dict; it has to be one number"):
        load_metric(f"{__name__}:figures", base_dir=HERE).of_own(torch.ones(2), torch.ones(2))


def test_a_class_of_losses_is_taken_as_one_of_its_objects() -> None:
    outputs, labels = torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([1, 1])
    assert load_loss("torch.nn:MultiMarginLoss")(outputs, labels).item() == pytest.approx(0.5)
    with pytest.raises(SettingsError, match="cannot be built without options"):
        load_loss("types:MappingProxyType")


def test_a_network_that_is_made_already_is_told_what_would_make_one() -> None:
    with pytest.raises(SettingsError, match="made already; name a function, or a class, that"):
        load_network(f"{__name__}:made", {}, seed=0)
