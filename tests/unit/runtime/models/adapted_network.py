"""A network of which little learns: adapters beside frozen layers, and what comes after."""

import torch
from torch import Tensor, nn


class Adapted(nn.Module):
    """A frozen linear layer with a low-rank addition that learns, as LoRA has it."""

    def __init__(self, num_in: int, num_out: int, *, rank: int) -> None:
        super().__init__()
        self.base = nn.Linear(num_in, num_out).requires_grad_(requires_grad=False)
        self.down = nn.Linear(num_in, rank, bias=False)
        self.up = nn.Linear(rank, num_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, feature] to the same axes."""
        outputs: Tensor = self.base(x) + self.up(self.down(x))
        return outputs


def adapted() -> nn.Module:
    """Frozen, adapted, learning: `stem`, `norm`, `middle` and `head`, for 1 x 8 x 8."""
    stem = nn.Conv2d(1, 4, 3, padding=1).requires_grad_(requires_grad=False)
    return nn.Sequential(
        stem,
        nn.BatchNorm2d(4, affine=False),
        nn.ReLU(),
        nn.Flatten(),
        Adapted(256, 32, rank=2),
        nn.Tanh(),
        nn.Linear(32, 10),
    )


def frozen_bytes(network: nn.Module) -> int:
    """Bytes of what does not learn."""
    return sum(p.nbytes for p in network.parameters() if not p.requires_grad)


def refreeze(network: nn.Module) -> None:
    """Give what does not learn other values, as a start from other weights does."""
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.requires_grad:
                parameter.mul_(0.5)
