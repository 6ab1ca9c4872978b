"""Networks as people write them: functions between layers, layers used twice, skips, branches."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Shape = tuple[int, ...]


class Tutorial(nn.Module):
    """The first network of many tutorials: its pool used twice, functions in between."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(4, 5, 3)
        self.fc1 = nn.Linear(5 * 2 * 2, 8)
        self.fc2 = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, channel, row, column] to [sample, class]."""
        x = self.pool(functional.relu(self.conv1(x)))
        x = self.pool(functional.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        outputs: Tensor = self.fc2(functional.relu(self.fc1(x)))
        return outputs


class Block(nn.Module):
    """A residual block whose ReLU is used twice, in place."""

    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_in, num_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(num_out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(num_out)
        self.downsample = nn.Conv2d(num_in, num_out, 1, stride) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """[sample, channel, row, column]."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        activated: Tensor = self.relu(out)
        return activated


class Residual(nn.Module):
    """A small ResNet as torchvision writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(Block(4, 4, 1), Block(4, 6, 2))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, channel, row, column] to [sample, class]."""
        x = self.layer1(self.relu(self.bn1(self.conv1(x))))
        outputs: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return outputs


class Attention(nn.Module):
    """A vision transformer: a class token, positions, scaled dot product attention."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.position = nn.Parameter(torch.randn(1, 5, 8))
        self.register_buffer("scale", torch.ones(8), persistent=False)
        self.norm, self.qkv, self.project = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.drop, self.head = nn.Dropout(0.3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, channel, row, column] to [sample, class]."""
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x * self.scale], dim=1)
        x = x + self.position
        x = x + self._attend(self.norm(x))
        outputs: Tensor = self.head(self.drop(x)[:, 0])
        return outputs

    def _attend(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attended = functional.scaled_dot_product_attention(q, k, v)
        projected: Tensor = self.project(attended.transpose(1, 2).reshape(batch, length, width))
        return projected


class Recurrent(nn.Module):
    """A classifier of series, whose first state is made in its forward."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU]) -> None:
        super().__init__()
        self.layers = kind(4, 6, num_layers=2, batch_first=True)
        self.drop, self.fc = nn.Dropout(0.4), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, step, feature] to [sample, class]."""
        zeros = torch.zeros(2, x.size(0), 6)
        state = (zeros, zeros) if isinstance(self.layers, nn.LSTM) else zeros
        steps, _ = self.layers(x, state)
        outputs: Tensor = self.fc(self.drop(steps[:, -1]))
        return outputs


class Encoder(nn.Module):
    """PyTorch's transformer on token ids, its word weights tied to what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.register_buffer("scale", torch.tensor(2.0))
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """[sample, token] to [sample, class]."""
        x = self.embed(ids) * self.scale
        x = self.encoder(x, mask=mask) * self.scale
        return {"logits": self.head(x.mean(1))}


class Tied(nn.Module):
    """Gives its input's weights a second use."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        """[sample, feature] to [sample, class]."""
        outputs: Tensor = self.third(functional.gelu(self.second(torch.relu(self.first(x)))))
        return outputs


class Skips(nn.Module):
    """A small U-Net: what is computed on the way down is used again on the way up."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = _pair(3, 4), _pair(4, 6)
        self.pool, self.bottom = nn.MaxPool2d(2), _pair(6, 8)
        self.widen2, self.up2 = nn.ConvTranspose2d(8, 6, 2, 2), _pair(12, 6)
        self.widen1, self.up1 = nn.ConvTranspose2d(6, 4, 2, 2), _pair(8, 4)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, channel, row, column] to the same with classes for channels."""
        first = self.down1(x)
        second = self.down2(self.pool(first))
        x = self.widen2(self.bottom(self.pool(second)))
        x = self.widen1(self.up2(torch.cat([x, second], dim=1)))
        outputs: Tensor = self.head(self.up1(torch.cat([x, first], dim=1)))
        return outputs


def _pair(num_in: int, num_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, 3, padding=1),
        nn.BatchNorm2d(num_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(num_out, num_out, 3, padding=1),
    )


class Masked(nn.Module):
    """Reads a tokenised batch as Hugging Face's models do, and answers with a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(12, 8), nn.Parameter(torch.randn(1, 6, 8))
        self.blocks = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in "ab")
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in "ab")
        self.head = nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """[sample, token] twice, to [sample, class]."""
        x, hidden = self.embed(input_ids) + self.position, attention_mask == 0
        for block, norm in zip(self.blocks, self.norms, strict=True):
            attended, _ = block(x, x, x, key_padding_mask=hidden, need_weights=False)
            x = norm(x + attended)
        weights = attention_mask.unsqueeze(-1).to(x.dtype)
        return {"hidden": x, "logits": self.head((x * weights).sum(1) / weights.sum(1))}


class MaskedAsWhole(Masked):
    """Reads the same batch as one dictionary."""

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        """[sample, token] twice, to [sample, class]."""
        assert "labels" not in batch
        return super().forward(**dict(batch.items()))


class Written(nn.Module):
    """Writes parts of its tensors by index."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, feature] to [sample, class]."""
        x = self.first(x)
        x[:, 0] = 0
        spread = torch.zeros_like(x)
        spread[:, ::2] = x[:, 3:]
        outputs: Tensor = self.second(spread.tanh())
        return outputs


TOKENS: dict[str, Shape] = {"input_ids": (6,), "attention_mask": (6,)}
BROUGHT: dict[str, tuple[Callable[[], nn.Module], Shape | dict[str, Shape]]] = {
    "tutorial": (Tutorial, (3, 14, 14)),
    "residual": (Residual, (3, 8, 8)),
    "attention": (Attention, (3, 8, 8)),
    "lstm": (lambda: Recurrent(nn.LSTM), (5, 4)),
    "gru": (lambda: Recurrent(nn.GRU), (5, 4)),
    "encoder": (Encoder, (6,)),
    "tied": (Tied, (4,)),
    "skips": (Skips, (3, 8, 8)),
    "written": (Written, (4,)),
    "masked": (Masked, TOKENS),
}
