"""A network of one's own, trained on six local devices; where it is cut follows from the plan.

cpsl local --model examples.own_network:network --rounds 20
"""

from collections import OrderedDict

import torch
from torch import nn


class Residual(nn.Module):
    """Two convolutions and what went into them: one layer to cut before or after."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.second = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the shortcut."""
        return torch.relu(x + self.second(torch.relu(self.first(x))))


def network(width: int = 8) -> nn.Sequential:
    """For 1 x 28 x 28 images; an option is given by --set 'model.options={ width = 16 }'."""
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(1, width, kernel_size=3, stride=2, padding=1),
            residual=Residual(width),
            pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            head=nn.Linear(width * 7 * 7, 10),
        )
    )
