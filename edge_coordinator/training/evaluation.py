"""Loss and metrics of layers on samples, by all processors."""

import copy
import logging
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
import torch
from numpy.typing import NDArray

from edge_coordinator.training.computing.accelerator import PROCESSOR, Accelerator
from edge_coordinator.training.metrics import Figures, Metric, Sums, add, figures_of, sums_of
from runtime.datasets.samples import Samples
from runtime.models.kernels import usual_kernels
from runtime.models.losses import Loss
from runtime.wire.frames import Tensor

log = logging.getLogger(__name__)

_EVALUATION_BATCH = 250
TASKS_OWN = Metric()
MOST_WORKERS = 4
"""Of an evaluation: each holds the activations of a batch."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Loss and figures over some samples."""

    loss: float
    figures: Figures
    """By name, those of the task first; empty where outputs and labels belong to none."""
    metric: str = ""
    """Which of them says what is better; empty where none does."""
    lower_is_better: bool = False
    confusion: NDArray[np.float64] | None = None
    """Of classes, [class, taken for]."""

    @property
    def accuracy(self) -> float | None:
        """Fraction of the samples right; None where the labels are no classes."""
        return self.figures.get("accuracy") if "iou" not in self.figures else None

    def reported(self) -> dict[str, object]:
        """Give what a round's report says of it."""
        return {
            "test_loss": self.loss,
            "test_accuracy": self.accuracy,
            "metric": self.metric,
            "test_metric": self.figures.get(self.metric),
            "lower_is_better": self.lower_is_better,
            "test_figures": self.figures,
        }


def evaluate_layers(
    layers: torch.nn.Module,
    test: Samples,
    loss: Loss,
    *,
    metric: Metric = TASKS_OWN,
    most_workers: int = MOST_WORKERS,
    accelerator: Accelerator = PROCESSOR,
) -> Evaluation:
    """Loss and figures of some layers in evaluation mode, several batches at a time.

    Whoever waits for it uses no processor meanwhile, so all are taken, up to `most_workers`. Each
    batch is one thread's, and sums are in the order of the batches: so the result is the same on
    any number of processors. What is on an accelerator computes one batch after another.
    """
    layers.eval()
    most_workers = most_workers if accelerator.is_processor else 1
    starts = range(0, len(test), _EVALUATION_BATCH)
    copies = _copies(layers, min(most_workers, os.cpu_count() or 1, len(starts)))
    free: SimpleQueue[torch.nn.Module] = SimpleQueue()
    for each in copies:
        free.put(each)

    def evaluate_at(start: int) -> Batch | None:
        own = free.get()
        batch = slice(start, start + _EVALUATION_BATCH)
        try:
            x, y = test.without_unusable(batch)
            if not len(y):  # A mean over none is no number, and spoils all others.
                return None
            return _evaluate_batch(own, x, y, loss, metric=metric, accelerator=accelerator)
        finally:
            free.put(own)

    with ThreadPoolExecutor(len(copies), "evaluate", torch.set_num_threads, (1,)) as pool:
        batches = [batch for batch in pool.map(evaluate_at, starts) if batch is not None]
    return evaluation_of(batches, metric)


@dataclass(frozen=True, eq=False)
class Batch:
    """What one batch adds to an evaluation."""

    loss: float
    """Summed over the samples."""
    sums: Sums
    outputs: torch.Tensor | None
    """Kept for a metric of the user's own alone."""
    labels: torch.Tensor


@usual_kernels()
def _evaluate_batch(
    layers: torch.nn.Module,
    x: np.ndarray,
    y: Tensor,
    loss: Loss,
    *,
    metric: Metric,
    accelerator: Accelerator,
) -> Batch:
    with torch.no_grad():
        with accelerator.computing():
            outputs: torch.Tensor = layers(accelerator.put(x))
        return judged(outputs.cpu(), torch.from_numpy(y), loss, metric)


def judged(
    outputs: torch.Tensor, labels: torch.Tensor, loss: Loss, metric: Metric = TASKS_OWN
) -> Batch:
    """Give what a batch adds, by its outputs."""
    total_loss = loss(outputs, labels).item() * len(labels)
    kept = outputs if metric.own else None
    return Batch(total_loss, sums_of(outputs, labels, loss), kept, labels)


def evaluation_of(batches: Sequence[Batch], metric: Metric = TASKS_OWN) -> Evaluation:
    """Add batches up, in their order."""
    num_samples = sum(len(batch.labels) for batch in batches)
    sums = add([batch.sums for batch in batches])
    figures = figures_of(sums)
    kept = [batch.outputs for batch in batches if batch.outputs is not None]
    if kept:
        labels = torch.cat([batch.labels for batch in batches])
        own = metric.of_own(torch.cat(kept), labels)
        for value in own.values():
            if not math.isfinite(value):
                log.warning(
                    "evaluation.metric = %s gave %s: this evaluation has no metric, and is worse "
                    "than any that has one",
                    metric.name,
                    value,
                )
        figures = own | figures
    figures = {name: value for name, value in figures.items() if math.isfinite(value)}
    return Evaluation(
        loss=sum(batch.loss for batch in batches) / num_samples,
        figures=figures,
        metric=metric.chosen(figures),
        lower_is_better=metric.lower_is_better,
        confusion=sums.get("confusion"),
    )


def _copies(layers: torch.nn.Module, count: int) -> list[torch.nn.Module]:
    """The layers and copies that share their tensors: a user's own may keep notes of a forward."""
    tensors = {id(tensor): tensor for tensor in (*layers.parameters(), *layers.buffers())}
    try:
        return [layers, *(copy.deepcopy(layers, dict(tensors)) for _ in range(count - 1))]
    except (RuntimeError, TypeError):  # Such notes can make layers that cannot be copied.
        return [layers]
