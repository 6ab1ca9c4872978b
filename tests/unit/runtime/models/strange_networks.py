"""Networks of kinds that strangers bring, each with what is particular to it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class _Sign(torch.autograd.Function):
    """A sign whose gradient passes where its input is small."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ANN401 - torch's own signature
        ctx.save_for_backward(x)
        return torch.sign(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        (x,) = ctx.saved_tensors
        gradient: Tensor = gradients[0] * (x.abs() < 1)
        return gradient


class Binary(nn.Module):
    """Learns through a function that has a backward of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.last(_Sign.apply(self.first(x)))  # type: ignore[no-untyped-call]
        return outputs


class Routed(nn.Module):
    """Begins with zeros whose first size is that of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        votes = torch.zeros(x.size(0), 6, device=x.device)
        for _ in range(2):
            votes = votes + torch.softmax(votes, 1) * self.first(x)
        return votes


class Sometimes(nn.Module):
    """Runs its layers in order for most batches."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if x.mean() > 1e9:
            x = -x
        outputs: Tensor = self.last(x)
        return outputs


class Lazy(nn.Module):
    """Learns its sizes from a first sample."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()
        self.last = nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.first(x)))
        outputs: Tensor = self.last(x.flatten(1))
        return outputs


class Tabular(nn.Module):
    """Takes categories beside numbers, and one of both is a single value."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(5, 4), nn.BatchNorm1d(2)
        self.last = nn.Linear(6, 3)

    def forward(self, kind: Tensor, readings: Tensor) -> Tensor:
        outputs: Tensor = self.last(torch.cat([self.embed(kind), self.norm(readings)], 1))
        return outputs


class Sparse(nn.Module):
    """Wants sparse gradients, which do not travel."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Embedding(5, 4, sparse=True), nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.embed(ids).mean(1))
        return outputs


class LayerDrop(nn.Module):
    """Leaves a layer out of some steps."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.second):
            drawn = torch.rand([])
            if not self.training or drawn >= self.p:
                x = x + layer(x)
        return x


class Dropping(nn.Module):
    """Has a part that leaves layers out."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.below, self.dropping, self.last = nn.Linear(8, 8), LayerDrop(p), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn(8) if self.training else torch.zeros(8)
        outputs: Tensor = self.last(self.dropping(self.below(x) + noise))
        return outputs


class ByNumpy(nn.Module):
    """Draws where nobody can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.fc(x * float(np.random.rand()))  # noqa: NPY002
        return outputs
