"""The built-in networks: sequences of named layers, any two of which a cut can part.

Each factory takes its options as keywords and builds a network with fresh parameters from
torch's random generator. A sample's shape is without the batch axis.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import prod
from types import MappingProxyType

import torch
from torch import nn
from torch.nn import functional

from runtime.errors import SettingsError
from runtime.models.sequence import LayerDict, Network, Shape


def lenet(
    *,
    num_classes: int = 10,
    input_shape: Sequence[int] = (1, 28, 28),
    width: int = 1,
    dropout: float = 0.0,
) -> Network:
    """Build LeNet-5 with max pooling; `width` multiplies channels and hidden units."""
    shape = _check(input_shape, num_axes=3, name="lenet", num_classes=num_classes, width=width)
    channels, *sides = shape
    flat = 16 * width * prod((side // 2 - 4) // 2 for side in sides)
    if min(sides) < 12:
        raise SettingsError(f"lenet needs images of 12 x 12 or more, not {shape}")
    layers: LayerDict = OrderedDict()
    layers["conv1"] = nn.Conv2d(channels, 6 * width, kernel_size=5, padding=2)
    layers["relu1"] = nn.ReLU()
    layers["pool1"] = nn.MaxPool2d(2)
    layers["conv2"] = nn.Conv2d(6 * width, 16 * width, kernel_size=5)
    layers["relu2"] = nn.ReLU()
    layers["pool2"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(flat, 120 * width)
    layers["relu3"] = nn.ReLU()
    _add_dropout(layers, "drop1", dropout)
    layers["fc2"] = nn.Linear(120 * width, 84 * width)
    layers["relu4"] = nn.ReLU()
    _add_dropout(layers, "drop2", dropout)
    layers["fc3"] = nn.Linear(84 * width, num_classes)
    return Network(layers, name="lenet", input_shape=shape)


def mlp(
    *,
    num_classes: int = 10,
    input_shape: Sequence[int] = (1, 28, 28),
    hidden: Sequence[int] = (128, 64),
    dropout: float = 0.0,
) -> Network:
    """Build a perceptron with one hidden layer for each number of units in `hidden`."""
    shape = _check(input_shape, num_axes=None, name="mlp", num_classes=num_classes)
    layers: LayerDict = OrderedDict(flatten=nn.Flatten())
    num_inputs = prod(shape)
    for index, num_units in enumerate(hidden, start=1):
        layers[f"fc{index}"] = nn.Linear(num_inputs, num_units)
        layers[f"relu{index}"] = nn.ReLU()
        _add_dropout(layers, f"drop{index}", dropout)
        num_inputs = num_units
    layers[f"fc{len(hidden) + 1}"] = nn.Linear(num_inputs, num_classes)
    return Network(layers, name="mlp", input_shape=shape)


def cnn1d(
    *,
    num_classes: int = 6,
    input_shape: Sequence[int] = (9, 128),
    width: int = 32,
    dropout: float = 0.0,
) -> Network:
    """Build two 1-D convolutions with batch norm, for windows of sensor readings [channel, time].

    `width` is the number of channels of the first convolution; the second has twice as many.
    """
    shape = _check(input_shape, num_axes=2, name="cnn1d", num_classes=num_classes, width=width)
    channels, num_steps = shape
    if num_steps < 4:
        raise SettingsError(f"cnn1d needs windows of 4 readings or more, not {shape}")
    layers: LayerDict = OrderedDict()
    for index, num_channels in enumerate((width, 2 * width), start=1):
        layers[f"conv{index}"] = nn.Conv1d(channels, num_channels, kernel_size=5, padding=2)
        layers[f"bn{index}"] = nn.BatchNorm1d(num_channels)
        layers[f"relu{index}"] = nn.ReLU()
        layers[f"pool{index}"] = nn.MaxPool1d(2)
        channels = num_channels
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(channels * (num_steps // 4), 64)
    layers["relu3"] = nn.ReLU()
    _add_dropout(layers, "drop1", dropout)
    layers["fc2"] = nn.Linear(64, num_classes)
    return Network(layers, name="cnn1d", input_shape=shape)


def resnet8(
    *,
    num_classes: int = 10,
    input_shape: Sequence[int] = (3, 32, 32),
    width: int = 16,
    dropout: float = 0.0,
) -> Network:
    """Build a residual network of three blocks with batch norm; each block is one layer.

    `width` is the number of channels of the first block; the others double it each time.
    """
    shape = _check(input_shape, num_axes=3, name="resnet8", num_classes=num_classes, width=width)
    layers: LayerDict = OrderedDict()
    layers["conv1"] = nn.Conv2d(shape[0], width, kernel_size=3, padding=1, bias=False)
    layers["bn1"] = nn.BatchNorm2d(width)
    layers["relu1"] = nn.ReLU()
    layers["block1"] = ResidualBlock(width, width, stride=1)
    layers["block2"] = ResidualBlock(width, 2 * width, stride=2)
    layers["block3"] = ResidualBlock(2 * width, 4 * width, stride=2)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    _add_dropout(layers, "drop1", dropout)
    layers["fc"] = nn.Linear(4 * width, num_classes)
    return Network(layers, name="resnet8", input_shape=shape)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut around them."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[sample, channel, row, column] to the same axes; a stride of 2 halves the sides."""
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(residual + self.shortcut(x))


BUILT_IN: MappingProxyType[str, Callable[..., Network]] = MappingProxyType(
    {"cnn1d": cnn1d, "lenet": lenet, "mlp": mlp, "resnet8": resnet8}
)
"""The factories by the name that a job file uses."""


def _add_dropout(layers: LayerDict, name: str, probability: float) -> None:
    """Append a dropout layer unless it would do nothing."""
    if not 0 <= probability < 1:
        raise SettingsError(f"dropout is {probability}, and has to be at least 0 and below 1")
    if probability > 0:
        layers[name] = nn.Dropout(probability)


def _check(input_shape: Sequence[int], *, num_axes: int | None, name: str, **counts: int) -> Shape:
    """Return the shape as a tuple; raises SettingsError when a size or a count is not positive."""
    for option, count in counts.items():
        if count < 1:
            raise SettingsError(f"{option} of {name} is {count}, and has to be 1 or more")
    shape = tuple(int(size) for size in input_shape)
    if num_axes is not None and len(shape) != num_axes:
        raise SettingsError(f"{name} takes samples of {num_axes} axes, not of shape {shape}")
    if not shape or min(shape) < 1:
        raise SettingsError(f"input_shape of {name} is {shape}; its sizes have to be 1 or more")
    return shape
