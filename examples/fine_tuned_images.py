"""A residual network that was trained on other pictures, fine-tuned on a folder of images.

python -m examples.fine_tuned_images
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from torch import nn
from torch.nn import functional

from examples.beside_plain_training import compare

NUM_CLASSES, SIZE = 5, 16
NAMES = ("zero", "one", "two", "three", "four")


class Block(nn.Module):
    """Two convolutions and a shortcut around them, as in torchvision's ResNets."""

    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_in, num_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(num_out)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(num_out)
        self.downsample = nn.Conv2d(num_in, num_out, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[sample, channel, row, column] to the same axes."""
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.downsample(x))


class ResNet(nn.Module):
    """For grey pictures of 16 x 16."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 12, 3, 1, 1, bias=False), nn.BatchNorm2d(12)
        self.layer1, self.layer2 = Block(12, 16, 2), Block(16, 32, 2)
        self.fc = nn.Linear(32, NUM_CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[sample, channel, row, column] to [sample, class]."""
        x = self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x)))))
        outputs: torch.Tensor = self.fc(x.mean(dim=(2, 3)))
        return outputs


def network() -> nn.Module:
    """The network, with weights of its own each time."""
    return ResNet()


def digits(first: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures of five digits from this one on, as bytes, and which each is."""
    images, labels = load_digits(return_X_y=True)
    chosen = (labels >= first) & (labels < first + NUM_CLASSES)
    small = (images[chosen].reshape(-1, 8, 8) * 15.9).astype(np.uint8)
    large = [np.asarray(Image.fromarray(each).resize((SIZE, SIZE))) for each in small]
    return np.array(large), labels[chosen] - first


def write_weights(path: Path, num_steps: int = 100) -> None:
    """Train on five to nine, in one place, as somebody else may have done; save a state_dict."""
    torch.manual_seed(0)
    images, labels = digits(NUM_CLASSES)
    x, y = torch.from_numpy(images / np.float32(127.5) - 1)[:, None], torch.from_numpy(labels)
    model = ResNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(num_steps):
        batch = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(model(x[batch]), y[batch]))
        optimizer.step()
    torch.save(model.state_dict(), path)


def write_folder(folder: Path) -> None:
    """Write zero to four as files, a folder for each, a quarter of them to test on."""
    for number, (image, label) in enumerate(zip(*digits(0), strict=True)):
        own = folder / ("test" if number % 4 == 0 else "train") / NAMES[label]
        own.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(own / f"{number}.png")


def main() -> None:
    """Train from these weights with another head, split and in one place, and print both."""
    with TemporaryDirectory() as folder:
        weights, images = Path(folder) / "trained-on-others.pt", Path(folder) / "images"
        write_weights(weights)
        write_folder(images)
        compare(
            {
                "data.source": f"folder:{images}?channels=1",
                "data.partition": "iid",
                "model.name": "examples.fine_tuned_images:network",
                "model.start": str(weights),
                "model.start_except": '["fc.*"]',
                "model.freeze": '["conv1.*"]',
                "training.rounds": "12",
            },
            flags=sys.argv[1:],
        )


if __name__ == "__main__":
    main()
