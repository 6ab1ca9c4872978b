"""One try of a job's loss, on real samples and before any round."""

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_coordinator.job.settings import EvaluationSettings
from edge_coordinator.training.metrics import (
    LOWER_IS_BETTER,
    Metric,
    is_classification,
    names_of,
    sums_of,
)
from runtime.datasets.samples import Samples
from runtime.errors import SettingsError
from runtime.models.losses import Loss
from runtime.models.sequence import Network
from runtime.plugins import described
from runtime.target_shape import IGNORED

log = logging.getLogger(__name__)

_FAR = 100.0
"""A target and a loss beyond are far from what a usual learning rate is for."""
_OF_CLASSES = (
    f"; it takes outputs [sample, class, ...] and labels [sample, ...] from 0 on, or {IGNORED} for "
    "what counts for nothing"
)

_NUM_TRIED = 2


def check_loss(
    network: Network,
    loss: Loss,
    samples: Samples,
    *,
    name: str,
    metric: Metric,
    rules: EvaluationSettings,
) -> None:
    """SettingsError unless the loss is a mean that can teach, and what is wanted can be measured.

    `name` is the loss's; `rules` say whether the job ends at some accuracy, or at what `metric` is.
    """
    first = np.arange(min(_NUM_TRIED, len(samples)))
    x, tried = samples.usable(first, among=np.arange(len(samples)))
    labels = torch.from_numpy(samples.y[tried])
    was_training = network.training
    with torch.no_grad():
        outputs = network.eval()(torch.from_numpy(x))
    network.train(was_training)
    given = f"outputs of shape {tuple(outputs.shape)} and labels of shape {tuple(labels.shape)}"
    given += f" ({labels.dtype})".replace("torch.", "")
    value = _value(loss, outputs.requires_grad_(outputs.is_floating_point()), labels, name, given)
    _check_value(value, name, given)
    _warn_of_large_targets(value, samples.y)
    if rules.target_accuracy is not None and not is_classification(outputs, labels):
        raise SettingsError(
            f"evaluation.target_accuracy: {given} have no accuracy; it takes two outputs or more a "
            "sample and one whole number as its label"
        )
    _check_metric(metric, rules, outputs.detach(), labels, loss=loss, given=given)


def _warn_of_large_targets(value: object, targets: NDArray[Any]) -> None:
    """Say that numbers far from 1 are learnt badly, before a run diverges by them."""
    most = float(np.abs(targets).max()) if targets.dtype.kind == "f" else 0.0
    if most > _FAR and isinstance(value, torch.Tensor) and float(value.detach()) > _FAR:
        log.warning(
            "targets go up to %.4g, and the loss begins at %.4g: bring them to about -1 to 1 (by "
            "their mean and deviation, say), or take a small learning rate",
            *(most, float(value.detach())),
        )


def _check_metric(
    metric: Metric,
    rules: EvaluationSettings,
    outputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    loss: Loss,
    given: str,
) -> None:
    """SettingsError if there is no such figure of these outputs, or it cannot be what is wanted."""
    if metric.own:
        metric.of_own(outputs, labels)
        return
    has = names_of(sums_of(outputs, labels, loss))
    if metric.name not in ("auto", *has) or (rules.target is not None and not has):
        wanted = "evaluation.metric" if has else "evaluation.target"
        raise SettingsError(
            f"{wanted}: {given} have {', '.join(has) or 'no metric of their own'}, not "
            f"{metric.name}; name one of these, or your own as package.module:function"
        )
    counts = metric.chosen(dict.fromkeys(has, 0.0))
    if rules.target is not None and counts not in LOWER_IS_BETTER and rules.target > 1:
        raise SettingsError(
            f"evaluation.target is {rules.target:g}: {counts} is 1 at the most, so that no run "
            "would reach it"
        )


def _check_value(value: object, name: str, given: str) -> None:
    """SettingsError unless what the loss returned is one number that can teach."""
    if not isinstance(value, torch.Tensor):
        raise SettingsError(
            f"the loss {name} returned a {type(value).__name__}; it has to be a tensor that can be "
            "differentiated, so without .item()"
        )
    if value.is_complex():
        raise SettingsError(f"the loss {name} returned a complex number; it has to be a real one")
    if value.numel() != 1:
        raise SettingsError(
            f"the loss {name} returned values of shape {tuple(value.shape)} for {given}; it has to "
            "be one number, the mean over the samples"
        )
    if not value.requires_grad:
        raise SettingsError(f"the loss {name} does not depend on the outputs in a way to learn by")


def _value(
    loss: Loss, outputs: torch.Tensor, labels: torch.Tensor, name: str, given: str
) -> object:
    try:
        return loss(outputs, labels)
    except SettingsError:
        raise
    except Exception as error:  # It is the user's own function.
        hint = _OF_CLASSES if name == "cross_entropy" else ""
        reason = str(error).partition("\n")[0].rstrip(".") if hint else described(error)
        raise SettingsError(f"the loss {name} cannot take {given}: {reason}{hint}") from error
