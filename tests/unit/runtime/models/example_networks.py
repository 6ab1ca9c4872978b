"""Networks that people bring: mobile, recurrent, attention, and single layers of all kinds."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]


class FirstOutput(nn.Module):
    """The sequence that a recurrent layer gives, without its last state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """[sample, step, feature] to [sample, step, unit]."""
        sequence: Tensor = self.layer(x)[0]
        return sequence


class InvertedResidual(nn.Module):
    """The block of MobileNetV2: expand, filter each channel, project."""

    def __init__(self, num_in: int, num_out: int, *, stride: int) -> None:
        super().__init__()
        hidden = 4 * num_in
        self.is_residual = stride == 1 and num_in == num_out
        self.layers = nn.Sequential(
            nn.Conv2d(num_in, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, num_out, 1, bias=False),
            nn.BatchNorm2d(num_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[sample, channel, row, column]."""
        y: Tensor = self.layers(x)
        return x + y if self.is_residual else y


class ScaleByNoise(nn.Module):
    """A layer that draws random numbers by itself."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by noise."""
        return x * torch.rand_like(x)


class InvertMatrices(nn.Module):
    """A layer that ONNX has no operator for."""

    def forward(self, x: Tensor) -> Tensor:
        """Invert a matrix made of the first two features."""
        inverse: Tensor = torch.linalg.inv(x[:, :2, None] * x[:, None, :2] + torch.eye(2))
        return inverse


def mobile() -> nn.Sequential:
    """A stem and two blocks of MobileNetV2."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        InvertedResidual(8, 8, stride=1),
        InvertedResidual(8, 12, stride=2),
    )


def transformer() -> nn.Sequential:
    """A projection and an encoder layer."""
    encoder = nn.TransformerEncoderLayer(
        16, 4, 32, dropout=0.0, activation="gelu", batch_first=True
    )
    return nn.Sequential(nn.Linear(6, 16), encoder)


EXAMPLES: dict[str, tuple[Callable[[], nn.Sequential], Shape]] = {
    "mobile": (mobile, (3, 16, 16)),
    "lstm": (
        lambda: nn.Sequential(FirstOutput(nn.LSTM(5, 12, batch_first=True)), nn.Flatten()),
        (4, 5),
    ),
    "gru": (
        lambda: nn.Sequential(FirstOutput(nn.GRU(5, 12, batch_first=True)), nn.Flatten()),
        (4, 5),
    ),
    "both directions": (
        lambda: nn.Sequential(
            FirstOutput(
                nn.LSTM(5, 6, 2, batch_first=True, bidirectional=True, dropout=0.3, bias=False)
            ),
            FirstOutput(nn.RNN(12, 6, nonlinearity="relu", batch_first=True)),
        ),
        (4, 5),
    ),
    "attention": (
        lambda: nn.Sequential(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)),
        (5, 6),
    ),
    "transformer": (transformer, (7, 6)),
    "nothing": (lambda: nn.Sequential(nn.Identity()), (4,)),
    "flatten": (lambda: nn.Sequential(nn.Flatten()), (4, 5)),
    "grouped": (
        lambda: nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=2), nn.Tanh(), nn.AvgPool2d(3, 2, 1)),
        (8, 12, 12),
    ),
    "dilated": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 8, 3, dilation=2), nn.LeakyReLU(), nn.AdaptiveAvgPool2d(3)
        ),
        (4, 12, 13),
    ),
    "transposed": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(4, 6, 3, 2, 1), nn.SiLU(), nn.MaxPool2d(3, 2, 1), nn.Dropout2d(0.3)
        ),
        (4, 9, 9),
    ),
    "volume": (
        lambda: nn.Sequential(
            nn.Conv3d(2, 4, 3, padding=1), nn.ELU(), nn.MaxPool3d(2), nn.InstanceNorm3d(4)
        ),
        (2, 6, 6, 6),
    ),
    "ceiling": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 1), nn.MaxPool2d(3, 2, ceil_mode=True), nn.PReLU()),
        (2, 8, 8),
    ),
}
