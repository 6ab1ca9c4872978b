"""More networks as people write them: graphs, series, one sequence from another."""

import torch
from torch import Tensor, nn

from benchmarks.networks.brought import Brought

NUM_CLASSES, VOCABULARY, NUM_NODES = 10, 100, 10


class GraphConvolutions(nn.Module):
    """Classifies a graph: each node hears of its neighbours, along the edges of a ring."""

    sources: Tensor
    targets: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 16)
        self.head = nn.Linear(16, NUM_CLASSES)
        here = torch.arange(NUM_NODES)
        there = (here + 1) % NUM_NODES
        self.register_buffer("sources", torch.cat([here, there]))
        self.register_buffer("targets", torch.cat([there, here]))

    def forward(self, x: Tensor) -> Tensor:
        """[sample, node, feature] to [sample, class]."""
        x = torch.relu(self.first(self._heard(x)))
        x = torch.relu(self.second(self._heard(x)))
        outputs: Tensor = self.head(x.mean(1))
        return outputs

    def _heard(self, x: Tensor) -> Tensor:
        targets = self.targets.view(1, -1, 1).expand(x.shape[0], -1, x.shape[2])
        return torch.zeros_like(x).scatter_add(1, targets, x[:, self.sources])


class TemporalConvolutions(nn.Module):
    """Dilated convolutions, weight-normed, that see no later step; classifies by the last."""

    def __init__(self) -> None:
        super().__init__()
        weight_norm = nn.utils.parametrizations.weight_norm
        self.first = weight_norm(nn.Conv1d(3, 8, 3, padding=4, dilation=2))
        self.second = weight_norm(nn.Conv1d(8, 8, 3, padding=8, dilation=4))
        self.skip, self.drop = nn.Conv1d(3, 8, 1), nn.Dropout(0.2)
        self.head = nn.Linear(8, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, feature, step] to [sample, class]."""
        y = self.drop(torch.relu(self.first(x)[:, :, :-4]))
        y = self.drop(torch.relu(self.second(y)[:, :, :-8]))
        outputs: Tensor = self.head(torch.relu(y + self.skip(x))[:, :, -1])
        return outputs


class Cells(nn.Module):
    """Goes through a series cell by cell, in a loop of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(9, 16), nn.Linear(16, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, step, feature] to [sample, class]."""
        state = x.new_zeros(x.shape[0], 16)
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        outputs: Tensor = self.head(state)
        return outputs


class FromSequence(nn.Module):
    """Writes the second half of its tokens from the first, by attention between two GRUs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 16)
        self.reader = nn.GRU(16, 32, batch_first=True)
        self.writer = nn.GRU(16, 32, batch_first=True)
        self.head = nn.Linear(64, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        """[sample, 16 tokens] to [sample, token, 8]."""
        read, state = self.reader(self.embed(tokens[:, :8]))
        written, _ = self.writer(self.embed(tokens[:, 8:]), state)
        attended = torch.softmax(written @ read.transpose(1, 2), -1) @ read
        outputs: Tensor = self.head(torch.cat([written, attended], -1))
        return outputs.transpose(1, 2)


class Translation(nn.Module):
    """PyTorch's encoder and decoder, the decoder masked."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(VOCABULARY, 32), nn.Linear(32, VOCABULARY)
        self.transformer = nn.Transformer(32, 2, 1, 1, 64, 0.1, batch_first=True)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(8))

    def forward(self, tokens: Tensor) -> Tensor:
        """[sample, 16 tokens] to [sample, token, 8]."""
        x = self.embed(tokens)
        written = self.transformer(x[:, :8], x[:, 8:], tgt_mask=self.mask, tgt_is_causal=True)
        outputs: Tensor = self.head(written)
        return outputs.transpose(1, 2)


OTHERS = (
    Brought("graph network", "torch", GraphConvolutions, (NUM_NODES, 6)),
    Brought("tcn", "torch", TemporalConvolutions, (3, 40)),
    Brought("gru cells", "torch", Cells, (8, 9)),
    Brought("sequence to sequence", "torch", FromSequence, (16,), VOCABULARY),
    Brought("translation", "torch", Translation, (16,), VOCABULARY),
)
