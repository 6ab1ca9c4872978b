"""A local epoch's step on the server with aggregated last-layer gradients.

Lin, Zhu, Deng, Chen, Gao, Huang, Fang: Efficient Parallel Split Learning over Resource-constrained
Wireless Edge Networks, arXiv:2303.15991. Of each device the first n samples are aggregated: the
loss's gradients at the outputs of the j-th sample of all devices are summed, and go back once,
through the layers as they are at the mean of the j-th smashed data. What comes of it is the same
for all devices. The other samples go back as ever. docs/decisions/aggregated-gradients.md has the
mathematics, and what it is off by.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from edge_coordinator.training.algorithm import Smashed
from runtime.wire.codecs.turn import together
from runtime.wire.micro_batches import Rows

Sizes = Mapping[str, int | Rows]
"""By device in batch order: how many samples there are, or which of its mini-batch."""
Forward = Callable[[torch.Tensor, Sizes], torch.Tensor]
LossOf = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""The mean loss of outputs and labels."""
Backward = Callable[[torch.Tensor, Sequence[torch.Tensor]], None]
"""From a loss to gradients: of these inputs, and of what learns on the server side."""


class AggregatedStep:
    """Forward and loss on all samples, backward on those that are left of them."""

    def __init__(
        self,
        smashed: Mapping[str, Smashed],
        aggregated: int,
        *,
        forward: Forward,
        loss: LossOf,
        rows: Mapping[str, Rows] | None = None,
    ) -> None:
        """Aggregate the first `aggregated` samples of each device, which all of them have.

        `rows` of its mini-batch, where these are all that it sends now.
        """
        self._sizes = {device: len(smashed[device].data) for device in sorted(smashed)}
        self._aggregated = aggregated
        self._forward, self._loss_of = forward, loss
        self._first_rows = rows or {d: Rows(0, aggregated, n) for d, n in self._sizes.items()}
        starts = np.cumsum([0, *self._sizes.values()])[:-1]
        self._first = np.concatenate([start + np.arange(aggregated) for start in starts])
        self._rest = np.setdiff1d(np.arange(sum(self._sizes.values())), self._first)

    def loss(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Forward and mean loss on all samples; ValueError if outputs are not one a sample."""
        first, rest = (self._rows(inputs, rows) for rows in (self._first, self._rest))
        count = self._aggregated
        with torch.no_grad():
            of_first = self._forward(first, self._first_rows)
        self._together = self._by_device(first).mean(0).requires_grad_()
        self._left = rest.requires_grad_()
        tails = {d: Rows(count, n, n) for d, n in self._sizes.items() if n > count}
        self._of_left = self._forward(self._left, tails) if tails else of_first[:0]
        if (len(of_first), len(self._of_left)) != (len(self._first), len(self._rest)):
            raise ValueError("its outputs are not one for each sample, as training.phi needs them")
        order = np.argsort(np.concatenate([self._first, self._rest]))
        outputs = torch.cat([of_first, self._of_left.detach()])
        self._outputs = self._rows(outputs, order).requires_grad_()
        self._loss = self._loss_of(self._outputs, labels)
        return self._loss.detach()

    def backward(self, backward: Backward, *, share: float = 1.0) -> None:
        """Go back: from each sample's loss that is left, and once for all the others.

        `share` of all samples of the cluster are these, of whose loss this is the mean.
        """
        (slopes,) = torch.autograd.grad(self._loss, self._outputs)
        of_all = self._by_device(self._rows(slopes, self._first)).sum(0)
        once = self._forward(self._together, {together(self._sizes): self._rows_of_mean})
        # The gradient of this sum is what goes back from the outputs with these slopes.
        backed = (once * of_all).sum() + (self._of_left * self._rows(slopes, self._rest)).sum()
        inputs = [self._together, self._left] if len(self._rest) else [self._together]
        backward(backed if share == 1 else backed * share, inputs)

    @property
    def _rows_of_mean(self) -> Rows:
        """Which of the aggregated samples there are."""
        first = next(iter(self._first_rows.values()))
        return Rows(first.start, first.stop, first.stop)

    @property
    def for_all(self) -> torch.Tensor:
        """The gradient for the first samples of every device."""
        assert self._together.grad is not None
        gradient: torch.Tensor = self._together.grad / len(self._sizes)
        return gradient

    @property
    def for_each(self) -> torch.Tensor:
        """The gradients of the samples that are left, device after device."""
        return torch.zeros_like(self._left) if self._left.grad is None else self._left.grad

    @property
    def ends(self) -> NDArray[np.int64]:
        """Where each device's part of `for_each` ends, but for the last."""
        return np.cumsum([n - self._aggregated for n in self._sizes.values()])[:-1]

    def _by_device(self, first: torch.Tensor) -> torch.Tensor:
        """Shape what is of the aggregated samples as [device, sample, ...]."""
        return first.reshape(len(self._sizes), self._aggregated, *first.shape[1:])

    @staticmethod
    def _rows(tensor: torch.Tensor, rows: NDArray[np.int64]) -> torch.Tensor:
        return tensor.detach()[torch.from_numpy(rows).to(tensor.device)]
