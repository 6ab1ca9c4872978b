"""One local epoch's step of the server, micro-batch by micro-batch.

The loss is a mean over the samples of the cluster, so a micro-batch of n of its N samples gives
n / N of its own mean: the gradients of all micro-batches sum to those of the whole. Each device's
are summed in the order of its micro-batches, the devices' in id order, whenever they came: so the
bits are those of the plan. A device that is lost before its last micro-batch counts for nothing on
the server side, whose mean is over those that are left; the others have their gradients by then, of
the mean over all that were expected.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite

import torch
from torch import nn

from edge_coordinator.training.aggregated_step import AggregatedStep
from edge_coordinator.training.algorithm import Smashed
from runtime.models.side import Side
from runtime.wire.commands import Clip
from runtime.wire.frames import Tensor
from runtime.wire.micro_batches import Rows

Inputs = Mapping[int | None, torch.Tensor]
"""Joined smashed data by the cut that they enter at; None where all devices cut alike."""
LossOf = Callable[[Mapping[str, Smashed], Rows], tuple[Inputs, torch.Tensor]]
"""The inputs and the mean loss of one device's micro-batch."""
Backward = Callable[[Inputs, torch.Tensor], None]
"""From the inputs and a loss to gradients, which are added to those that there are."""
BeginFetch = Callable[[torch.Tensor], Callable[[], Tensor]]
"""Begins to copy a tensor to the processor; what it returns waits for it."""


_OF_ALL = ""
"""In the place of a device: what is aggregated over all of them."""


class AccumulatedStep:
    """Sums gradients until all micro-batches of a local epoch have come."""

    def __init__(
        self,
        side: Side,
        sizes: Mapping[str, int],
        loss_of: LossOf,
        backward: Backward,
        *,
        begin_fetch: BeginFetch,
        middle: Sequence[nn.Parameter] = (),
    ) -> None:
        """`sizes` is the number of samples that each device is to send.

        `middle` learns as well, of what some devices send, and is updated by others.
        """
        self._side = side
        self._learning = [*side.trainable, *middle]
        self._num_samples = sum(sizes.values())
        self._loss_of = loss_of
        self._backward = backward
        self._begin_fetch = begin_fetch
        self._gradients: dict[str, list[torch.Tensor | None]] = {}
        self._losses: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        """Samples that were added."""

    def add(self, device: str, rows: Rows, smashed: Smashed) -> tuple[float, Tensor | None]:
        """Forward, loss and backward of a micro-batch; its mean loss, and the device's gradient.

        The gradient is that of the mean over the cluster; None where nothing on the device learns.
        """
        inputs, loss = self._loss_of({device: smashed}, rows)
        mean = loss.item()
        if not isfinite(mean):
            return mean, None
        with self._adding_to(device, len(rows), mean):
            self._backward(inputs, loss * (len(rows) / self._num_samples))
        (entered,) = inputs.values()
        return mean, None if entered.grad is None else self._begin_fetch(entered.grad)()

    def add_together(
        self, step: AggregatedStep, inputs: torch.Tensor, labels: torch.Tensor
    ) -> tuple[float, Tensor | None]:
        """Add samples that are aggregated; their mean loss, and the gradient of all devices."""
        mean, num_samples = step.loss(inputs, labels).item(), len(inputs)
        if not isfinite(mean):
            return mean, None
        with self._adding_to(_OF_ALL, num_samples, mean):
            step.backward(
                lambda backed, own: self._backward(dict(enumerate(own)), backed),
                share=num_samples / self._num_samples,
            )
        return mean, self._begin_fetch(step.for_all)()

    @contextmanager
    def _adding_to(self, device: str, num_samples: int, mean: float) -> Iterator[None]:
        """Add gradients to what a device has given before."""
        own = self._gradients.setdefault(device, [None] * len(self._learning))
        for parameter, gradient in zip(self._learning, own, strict=True):
            parameter.grad = gradient
        yield
        self._gradients[device] = [parameter.grad for parameter in self._learning]
        for parameter in self._learning:
            parameter.grad = None
        self._losses[device] = self._losses.get(device, 0.0) + mean * num_samples
        self._counts[device] = self._counts.get(device, 0) + num_samples

    def finish(
        self, devices: Collection[str], learning_rate: float, clip: Clip | None = None
    ) -> float:
        """Update the server side by what these devices sent; the mean loss over their samples.

        What is aggregated is of all that gave it. What else learns is left with the gradient of the
        mean over all that were expected.
        """
        present = sorted(each for each in (_OF_ALL, *devices) if each in self._gradients)
        num_samples = sum(self._counts[device] for device in present)
        num_renormalised = len(self._side.trainable) if num_samples < self._num_samples else 0
        for place, parameter in enumerate(self._learning):
            total: torch.Tensor | None = None
            for device in present:
                own = self._gradients[device][place]
                if own is not None:
                    total = own if total is None else total + own
            if total is not None and place < num_renormalised:
                total = total * (self._num_samples / num_samples)
            parameter.grad = total
        self._side.step(learning_rate, clip)
        return sum(self._losses[device] for device in present) / num_samples
