"""LoRA: a transformer that was trained for something else stays frozen, small adapters learn.

python -m examples.adapters

Only the adapters and the head travel between rounds. `peft.get_peft_model` gives such a module of
any transformer; here it is written out.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from examples.beside_plain_training import compare
from examples.text import Sentences, Transformer, sentences

RANK = 8


class Adapted(nn.Module):
    """A frozen linear layer with a low-rank addition that learns, nothing at first."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(requires_grad=False)
        self.lora_a = nn.Linear(base.in_features, RANK, bias=False)
        self.lora_b = nn.Linear(RANK, base.out_features, bias=False)
        nn.init.zeros_(self.lora_b.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., feature] to the same axes."""
        outputs: torch.Tensor = self.base(x) + self.lora_b(self.lora_a(x))
        return outputs


def network() -> nn.Module:
    """The transformer, frozen but for its head, with adapters in each layer."""
    module = Transformer()
    for name, parameter in module.named_parameters():
        parameter.requires_grad = name.startswith("head.")
    for layer in module.layers:
        assert isinstance(layer, nn.Module)
        for name in ("query", "value", "up", "down"):
            layer.set_submodule(name, Adapted(layer.get_submodule(name)))  # type: ignore[arg-type]
    return module


def write_weights(path: Path, num_steps: int = 150) -> None:
    """Train all but the adapters on reviews, in one place; save a state_dict."""
    torch.manual_seed(0)
    items = [sentences(600, seed=2)[index] for index in range(600)]
    ids, mask, labels = (
        torch.from_numpy(np.array([item[key] for item in items]))
        for key in ("input_ids", "attention_mask", "label")
    )
    module = network().requires_grad_()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.003)
    for _ in range(num_steps):
        batch = torch.randint(len(ids), (64,))
        optimizer.zero_grad()
        outputs = module(ids[batch], mask[batch])
        torch.autograd.backward(functional.cross_entropy(outputs, labels[batch]))
        optimizer.step()
    torch.save(module.state_dict(), path)


def topics() -> tuple[Sentences, Sentences]:
    """Another question about such sentences: is it of art, as film, music and plot are."""
    return _about_art(600, seed=3), _about_art(200, seed=4)


def _about_art(count: int, *, seed: int) -> Sentences:
    made = sentences(count, seed=seed).sentences
    return Sentences(
        made, [int(bool({"film", "music", "plot"} & {*each.split()})) for each in made]
    )


def main() -> None:
    """Train the adapters split and in one place, and print both."""
    with TemporaryDirectory() as folder:
        weights = Path(folder) / "reviews.pt"
        write_weights(weights)
        compare(
            {
                "data.source": "examples.adapters:topics",
                "data.partition": "iid",
                "model.name": "examples.adapters:network",
                "model.start": str(weights),
                "model.start_except": '["head.*"]',
                "training.server_optimizer.name": "adamw",
                "training.server_optimizer.learning_rate": "0.01",
                "training.device_optimizer.name": "adamw",
                "training.device_optimizer.learning_rate": "0.01",
                "plan.cut": "layers.0",
                "training.rounds": "40",
            },
            flags=sys.argv[1:],
        )


if __name__ == "__main__":
    main()
