"""Samples through both halves in this process, and how good that is where there are labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edge_coordinator.cli.output import Output
from edge_coordinator.job.settings import JobSettings
from edge_coordinator.run.model.halves import SplitModel
from edge_coordinator.training.evaluation import Evaluation, evaluation_of, judged
from edge_coordinator.training.metrics import Metric, load_metric
from runtime.datasets.inputs import Asked
from runtime.datasets.samples import Samples
from runtime.errors import SettingsError
from runtime.inference.half import Floats, HalfInfo
from runtime.inference.predictions import Predictions, batches
from runtime.models.losses import Loss, load_loss


@dataclass(frozen=True)
class Judge:
    """By what outputs are judged."""

    loss: Loss
    metric: Metric


@dataclass(frozen=True, eq=False)
class Judged:
    """Predictions, and their figures where the samples have labels."""

    predictions: Predictions
    evaluation: Evaluation | None


def judge_of_job(settings: JobSettings) -> Judge:
    """Take the loss and the metric of a job."""
    here = Path.cwd()
    loss = load_loss(settings.training.loss, base_dir=here)
    return Judge(loss, load_metric(settings.evaluation.metric, base_dir=here))


def judge_of_info(info: HalfInfo) -> Judge | None:
    """Take those that exported halves name; None for code of somebody's own, which is not there."""
    if ":" in info.loss or ":" in info.metric:
        return None
    return Judge(load_loss(info.loss), load_metric(info.metric, base_dir=Path()))


def predict(
    split: SplitModel, asked: Asked, judge: Judge | None, *, batch_size: int, console: Output
) -> Judged:
    """Compute batch after batch, and say how far it is."""
    samples = _numbered(asked, split.info)
    outputs: list[Floats] = []
    with console.status("predicting") as status:
        for batch in batches(len(samples), batch_size):
            outputs.append(split.run(samples.x_of(batch)))
            status.update(f"predicted {min(batch.stop, len(samples))} of {len(samples)} samples")
    whole = np.concatenate(outputs)
    predictions = Predictions(
        whole,
        split.info.task,
        split.info.classes,
        asked.names,
        samples.y if asked.has_labels else None,
    )
    if judge is None or not asked.has_labels:
        return Judged(predictions, None)
    return Judged(predictions, _evaluation(whole, samples, judge, batch_size))


def _numbered(asked: Asked, info: HalfInfo) -> Samples:
    """Number labels along the model's classes."""
    if not asked.has_labels or not info.classes:
        return asked.samples
    return asked.samples.in_classes(info.classes, where="the data", numbers_count=True)


def _evaluation(outputs: Floats, samples: Samples, judge: Judge, batch_size: int) -> Evaluation:
    found = []
    for batch in batches(len(samples), batch_size):
        labels, own = torch.from_numpy(samples.y[batch]), torch.from_numpy(outputs[batch])
        try:
            found.append(judged(own, labels, judge.loss, judge.metric))
        except Exception as error:  # the loss may be the user's own
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise SettingsError(
                f"labels of shape {tuple(labels.shape[1:])} do not fit outputs of shape "
                f"{own.shape[1:]}: {reason}"
            ) from error
    return evaluation_of(found, judge.metric)
