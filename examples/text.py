"""A small transformer on tokenised text: is a sentence for or against? Split over six devices.

python -m examples.text
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from examples.beside_plain_training import compare

LENGTH, WIDTH, NUM_CLASSES = 12, 32, 2
SUBJECTS = ("film", "meal", "room", "staff", "music", "plot", "view", "price")
GOOD, BAD = ("fine", "lovely", "superb", "great"), ("dull", "awful", "poor", "bland")
OTHERS = ("the", "was", "and", "but", "very", "not", "today", "here", "quite")
WORDS = ("<pad>", *OTHERS, *SUBJECTS, *GOOD, *BAD)


class Layer(nn.Module):
    """Attention, and a perceptron at each place; each beside a shortcut."""

    def __init__(self, num_heads: int = 4) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.project = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """[sample, token, feature] to the same axes."""
        y = self.norm1(x)
        parts = (each(y) for each in (self.query, self.key, self.value))
        q, k, v = (p.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for p in parts)
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = x + self.project(attended.transpose(1, 2).flatten(2))
        outputs: torch.Tensor = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return outputs


class Transformer(nn.Module):
    """Reads a tokenised batch as Hugging Face's models do."""

    def __init__(self, num_layers: int = 2) -> None:
        super().__init__()
        self.input_shape = {"input_ids": (LENGTH,), "attention_mask": (LENGTH,)}
        self.embed = nn.Embedding(len(WORDS), WIDTH)
        self.position = nn.Parameter(0.02 * torch.randn(1, LENGTH, WIDTH))
        self.layers = nn.ModuleList(Layer() for _ in range(num_layers))
        self.head = nn.Linear(WIDTH, NUM_CLASSES)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """[sample, token] twice, to [sample, class]."""
        x = self.embed(input_ids) + self.position
        for layer in self.layers:
            x = layer(x, attention_mask[:, None, None, :] == 1)
        weights = attention_mask[..., None].to(x.dtype)
        outputs: torch.Tensor = self.head((x * weights).sum(1) / weights.sum(1))
        return outputs


def network() -> nn.Module:
    """The network, with weights of its own each time."""
    return Transformer()


@dataclass(frozen=True)
class Sentences:
    """Tokenised sentences with a label each, as torch and Hugging Face have data sets."""

    sentences: Sequence[str]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, index: int) -> dict[str, object]:
        """Token ids, which of them are words, and the label."""
        ids = [WORDS.index(word) for word in self.sentences[index].split()]
        missing = LENGTH - len(ids)
        return {
            "input_ids": np.array(ids + [0] * missing),
            "attention_mask": np.array([1] * len(ids) + [0] * missing),
            "label": self.labels[index],
        }


def sentences(count: int, seed: int) -> Sentences:
    """Make up sentences: of one thing good or bad is said, or denied."""
    generator = np.random.default_rng(seed)
    made, labels = [], []
    for _ in range(count):
        is_good, is_denied = generator.integers(2, size=2)
        word = generator.choice(GOOD if is_good else BAD)
        said = f"not {word}" if is_denied else f"{generator.choice(['very', 'quite'])} {word}"
        end = generator.choice(["today", "here", ""])
        made.append(f"the {generator.choice(SUBJECTS)} was {said} {end}".strip())
        labels.append(int(is_good != is_denied))
    return Sentences(made, labels)


def reviews() -> tuple[Sentences, Sentences]:
    """Give sentences to train and to test on."""
    return sentences(600, seed=0), sentences(200, seed=1)


def main() -> None:
    """Train split and in one place, and print both."""
    compare(
        {
            "data.source": "examples.text:reviews",
            "data.partition": "iid",
            "model.name": "examples.text:network",
            "training.server_optimizer.name": "adamw",
            "training.server_optimizer.learning_rate": "0.003",
            "training.device_optimizer.name": "adamw",
            "training.device_optimizer.learning_rate": "0.003",
            "training.rounds": "30",
        },
        flags=sys.argv[1:],
    )


if __name__ == "__main__":
    main()
