"""Networks as research code has them: two inputs, draws, a backward of its own, complex numbers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.networks.brought import Brought

NUM_CLASSES, NUM_NODES = 10, 10


class Variational(nn.Module):
    """Restores a picture from a code that is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(784, 64)
        self.mean, self.log_variance = nn.Linear(64, 8), nn.Linear(64, 8)
        self.decoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 784))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[sample, 1, row, column] to [sample, pixel], and what the code was drawn from."""
        hidden = functional.relu(self.encoder(x.view(-1, 784)))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        deviation = torch.exp(0.5 * log_variance)
        code = mean + torch.randn_like(deviation) * deviation
        return torch.sigmoid(self.decoder(code)), mean, log_variance


class Siamese(nn.Module):
    """Says whether two pictures are of one kind, by one tower for both."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(8 * 13 * 13, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Two of [sample, 1, row, column] to [sample, class]."""
        outputs: Tensor = self.head(torch.abs(self.tower(left) - self.tower(right)))
        return outputs


class DenseGraph(nn.Module):
    """Classifies a graph whose edges come with each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 16)
        self.head = nn.Linear(16, NUM_CLASSES)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """[sample, node, feature] and [sample, node, node] to [sample, class]."""
        degree = adjacency.abs().sum(-1, keepdim=True).clamp(min=1)
        x = functional.relu(torch.bmm(adjacency / degree, self.first(nodes)))
        x = functional.relu(torch.bmm(adjacency / degree, self.second(x)))
        outputs: Tensor = self.head(x.mean(1))
        return outputs


class _Sign(torch.autograd.Function):
    """A sign whose gradient is that of a line."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ANN401, ARG004 - torch's own signature
        return torch.sign(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401, ARG004
        return gradients[0].clamp(-1, 1)


class Binary(nn.Module):
    """Has activations of one bit, through which it learns by a gradient of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(784, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, 1, row, column] to [sample, class]."""
        x = _Sign.apply(self.first(x.flatten(1)))  # type: ignore[no-untyped-call]
        x = _Sign.apply(self.second(x))  # type: ignore[no-untyped-call]
        outputs: Tensor = self.head(x)
        return outputs


class Capsules(nn.Module):
    """Agrees on its outputs in rounds, from votes that begin as zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 9, 2)
        self.weight = nn.Parameter(torch.randn(1, 200, 4, 6, 8) * 0.05)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, 1, row, column] to [sample, class]."""
        poses = functional.relu(self.conv(x)).view(x.size(0), -1, 8)
        votes = (self.weight @ poses[:, :, None, :, None]).squeeze(-1)
        weights = torch.zeros(x.size(0), 200, 4, 1, device=x.device)
        for _ in range(2):
            agreed = (functional.softmax(weights, 2) * votes).sum(1, keepdim=True)
            agreed = agreed / (1 + agreed.norm(dim=-1, keepdim=True))
            weights = weights + (votes * agreed).sum(-1, keepdim=True)
        outputs: Tensor = agreed.squeeze(1).norm(dim=-1)
        return outputs


class FourierOperator(nn.Module):
    """Learns on the lowest frequencies of a field."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.beside = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1)
        self.head = nn.Conv2d(4, 1, 1)
        self.weight = nn.Parameter(torch.randn(4, 4, 8, 8, dtype=torch.cfloat) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, 1, row, column] to the same."""
        x = self.lift(x)
        low = torch.fft.rfft2(x)
        found = torch.zeros_like(low)
        found[:, :, :8, :8] = torch.einsum("bixy,ioxy->boxy", low[:, :, :8, :8], self.weight)
        x = torch.fft.irfft2(found, s=x.shape[-2:]) + self.beside(x)
        outputs: Tensor = self.head(functional.gelu(x))
        return outputs


RESEARCH = (
    Brought("variational autoencoder", "torch", Variational, (1, 28, 28)),
    Brought("siamese", "torch", Siamese, {"left": (1, 28, 28), "right": (1, 28, 28)}),
    Brought(
        "dense graph", "torch", DenseGraph, {"adjacency": (NUM_NODES, NUM_NODES), "nodes": (10, 6)}
    ),
    Brought("binary activations", "torch", Binary, (1, 28, 28)),
    Brought("capsules", "torch", Capsules, (1, 28, 28)),
    Brought("fourier operator", "torch", FourierOperator, (1, 32, 32)),
)
