"""Networks as people write them themselves, after tutorials."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.networks.brought import Brought

NUM_CLASSES = 10


class TutorialCnn(nn.Module):
    """The first convolutional network of PyTorch's tutorials."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, channel, row, column] to [sample, class]."""
        x = self.pool(functional.relu(self.conv1(x)))
        x = torch.flatten(self.pool(functional.relu(self.conv2(x))), 1)
        outputs: Tensor = self.fc3(functional.relu(self.fc2(functional.relu(self.fc1(x)))))
        return outputs


class RecurrentClassifier(nn.Module):
    """Classifies a series by its last state."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU]) -> None:
        super().__init__()
        self.rnn = kind(9, 32, num_layers=2, batch_first=True)
        self.head = nn.Linear(32, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, step, feature] to [sample, class]."""
        steps, _ = self.rnn(x)
        outputs: Tensor = self.head(steps[:, -1])
        return outputs


class UNet(nn.Module):
    """Two scales down and two up, with a skip at each."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = _pair(3, 8), _pair(8, 16), _pair(16, 32)
        self.pool = nn.MaxPool2d(2)
        self.widen2, self.widen1 = nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)
        self.up2, self.up1 = _pair(32, 16), _pair(16, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, channel, row, column] to the same with classes for channels."""
        first = self.down1(x)
        second = self.down2(self.pool(first))
        x = self.bottom(self.pool(second))
        x = self.up2(torch.cat([self.widen2(x), second], dim=1))
        x = self.up1(torch.cat([self.widen1(x), first], dim=1))
        outputs: Tensor = self.head(x)
        return outputs


class Autoencoder(nn.Module):
    """Squeezes a picture and restores it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(16, 8, 2, 2), nn.ReLU(), nn.ConvTranspose2d(8, 1, 2, 2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[sample, channel, row, column] to the same, and the code."""
        code = self.encoder(x)
        return torch.sigmoid(self.decoder(code)), code


class TokenTransformer(nn.Module):
    """PyTorch's own encoder on token ids with padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 32)
        self.position = nn.Parameter(torch.zeros(1, 16, 32))
        layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, NUM_CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """[sample, token] to [sample, class]; token 0 is padding."""
        x = self.embed(tokens) + self.position
        x = self.encoder(x, src_key_padding_mask=tokens == 0)
        outputs: Tensor = self.head(x.mean(dim=1))
        return outputs


def _pair(num_in: int, num_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, 3, padding=1),
        nn.BatchNorm2d(num_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(num_out, num_out, 3, padding=1),
        nn.ReLU(inplace=True),
    )


OWN = (
    Brought("tutorial cnn", "torch", TutorialCnn, (3, 32, 32)),
    Brought("lstm", "torch", lambda: RecurrentClassifier(nn.LSTM), (20, 9)),
    Brought("gru", "torch", lambda: RecurrentClassifier(nn.GRU), (20, 9)),
    Brought("u-net", "torch", UNet, (3, 32, 32)),
    Brought("autoencoder", "torch", Autoencoder, (1, 28, 28)),
    Brought("token transformer", "torch", TokenTransformer, (16,), 100),
)
