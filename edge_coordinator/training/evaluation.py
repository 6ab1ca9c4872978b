"""Loss and accuracy of layers on samples, by all processors."""

import copy
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
import torch

from runtime.datasets.samples import Samples
from runtime.models.kernels import usual_kernels
from runtime.models.losses import Loss
from runtime.wire.frames import Tensor

_EVALUATION_BATCH = 250
MOST_WORKERS = 4
"""Of an evaluation: each holds the activations of a batch."""


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy over some samples."""

    loss: float
    accuracy: float | None
    """Fraction right; None where the labels are no classes."""


def is_classification(outputs: torch.Tensor, labels: torch.Tensor) -> bool:
    """Whether the largest of a sample's outputs names its class: [n, class] and whole [n]."""
    whole = not labels.is_floating_point()
    return whole and outputs.dim() == 2 and outputs.shape[1] > 1 and labels.dim() == 1


def evaluate_layers(
    layers: torch.nn.Module, test: Samples, loss: Loss, *, most_workers: int = MOST_WORKERS
) -> Evaluation:
    """Loss and accuracy of some layers in evaluation mode, several batches at a time.

    Whoever waits for it uses no processor meanwhile, so all are taken, up to `most_workers`. Each
    batch is one thread's, and sums are in the order of the batches: so the result is the same on
    any number of processors.
    """
    layers.eval()
    starts = range(0, len(test), _EVALUATION_BATCH)
    copies = _copies(layers, min(most_workers, os.cpu_count() or 1, len(starts)))
    free: SimpleQueue[torch.nn.Module] = SimpleQueue()
    for each in copies:
        free.put(each)

    def evaluate_at(start: int) -> tuple[float, int | None]:
        own = free.get()
        batch = slice(start, start + _EVALUATION_BATCH)
        try:
            return _evaluate_batch(own, test.x_of(batch), test.y[batch], loss)
        finally:
            free.put(own)

    with ThreadPoolExecutor(len(copies), "evaluate", torch.set_num_threads, (1,)) as pool:
        losses, rights = zip(*pool.map(evaluate_at, starts), strict=True)
    num_right = sum(right for right in rights if right is not None)
    return Evaluation(sum(losses) / len(test), None if None in rights else num_right / len(test))


@usual_kernels()
def _evaluate_batch(
    layers: torch.nn.Module, x: np.ndarray, y: Tensor, loss: Loss
) -> tuple[float, int | None]:
    """Sum of the loss, and how many are right; None where the labels are no classes."""
    with torch.no_grad():
        labels = torch.from_numpy(y)
        outputs = layers(torch.from_numpy(x))
        total_loss = loss(outputs, labels).item() * len(labels)
        if not is_classification(outputs, labels):
            return total_loss, None
        return total_loss, int((outputs.argmax(1) == labels).sum())


def _copies(layers: torch.nn.Module, count: int) -> list[torch.nn.Module]:
    """The layers and copies that share their tensors: a user's own may keep notes of a forward."""
    tensors = {id(tensor): tensor for tensor in (*layers.parameters(), *layers.buffers())}
    try:
        return [layers, *(copy.deepcopy(layers, dict(tensors)) for _ in range(count - 1))]
    except (RuntimeError, TypeError):  # Such notes can make layers that cannot be copied.
        return [layers]
