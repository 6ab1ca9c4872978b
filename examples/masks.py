"""A U-Net that finds discs and squares in noise: a class for each pixel, split over six devices.

python -m examples.masks
"""

import sys

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from examples.beside_plain_training import compare

SIZE, NUM_CLASSES = 24, 3
Arrays = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]


class UNet(nn.Module):
    """Two scales down and two up, with a skip at each."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = _pair(1, 8), _pair(8, 12), _pair(12, 16)
        self.pool = nn.MaxPool2d(2)
        self.widen2, self.widen1 = nn.ConvTranspose2d(16, 12, 2, 2), nn.ConvTranspose2d(12, 8, 2, 2)
        self.up2, self.up1 = _pair(24, 12), _pair(16, 8)
        self.head = nn.Conv2d(8, NUM_CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[sample, channel, row, column] to the same with classes for channels."""
        first = self.down1(x)
        second = self.down2(self.pool(first))
        x = self.bottom(self.pool(second))
        x = self.up2(torch.cat([self.widen2(x), second], dim=1))
        x = self.up1(torch.cat([self.widen1(x), first], dim=1))
        outputs: torch.Tensor = self.head(x)
        return outputs


def _pair(num_in: int, num_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, 3, padding=1), nn.BatchNorm2d(num_out), nn.ReLU(inplace=True)
    )


def network() -> nn.Module:
    """The network, with weights of its own each time."""
    return UNet()


def shapes(num_train: int = 480, num_test: int = 120) -> Arrays:
    """Give x_train, y_train, x_test, y_test; a mask is 1 in a disc, 2 in a square, else 0."""
    generator = np.random.default_rng(0)
    return (*_pictures(num_train, generator), *_pictures(num_test, generator))


def _pictures(
    count: int, generator: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    masks = np.zeros((count, SIZE, SIZE), np.int64)
    for mask in masks:
        for kind in (1, 2):
            row, column, reach = generator.uniform([6, 6, 3], [SIZE - 6, SIZE - 6, 6])
            down, right = np.abs(rows - row), np.abs(columns - column)
            is_in = down**2 + right**2 < reach**2 if kind == 1 else np.maximum(down, right) < reach
            mask[is_in] = kind
    x = (masks > 0) + generator.normal(0, 0.3, masks.shape)
    return x[:, np.newaxis].astype(np.float32), masks


def main() -> None:
    """Train split and in one place, and print both."""
    compare(
        {
            "data.source": "examples.masks:shapes",
            "data.partition": "iid",
            "model.name": "examples.masks:network",
            "training.server_optimizer.name": "adam",
            "training.server_optimizer.learning_rate": "0.005",
            "training.device_optimizer.name": "adam",
            "training.device_optimizer.learning_rate": "0.005",
            "training.batch_size": "8",
            "training.rounds": "25",
        },
        flags=sys.argv[1:],
    )


if __name__ == "__main__":
    main()
