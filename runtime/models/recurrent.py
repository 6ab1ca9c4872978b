"""Recurrent layers whose dropout between layers is drawn from the step's key."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from runtime.models.seeded import SeededDropout

_RUN = {
    "LSTM": torch.lstm,
    "GRU": torch.gru,
    "RNN_TANH": torch.rnn_tanh,
    "RNN_RELU": torch.rnn_relu,
}


class SeededRecurrent(nn.RNNBase):
    """A recurrent layer of torch, with its own weights, whose dropout is layers of their own."""

    drops: nn.ModuleList

    def forward(self, x: Any, state: Any = None) -> tuple[Any, Any]:  # noqa: ANN401 - torch's own
        """As torch's: [sample, step, feature], or steps first; samples that have an axis."""
        if not isinstance(x, Tensor) or x.dim() != 3:
            raise TypeError("dropout between recurrent layers takes batches of equal length")
        is_lstm = self.mode == "LSTM"
        given = list(state or ()) if is_lstm else [] if state is None else [state]
        if not given:
            given = self._zeros(x, count=2 if is_lstm else 1)
        ends: list[list[Tensor]] = []
        for index, weights in enumerate(self.weights_of_layers()):
            if index:
                x = self._dropped(x, self.drops[index - 1])
            rows = (index * self.num_directions, self.num_directions)
            own = [each.narrow(0, *rows) for each in given]
            x, *last = self._run(x, own, weights)
            ends.append(last)
        joined = [torch.cat([*each]) for each in zip(*ends, strict=True)]
        return x, (joined[0], joined[1]) if is_lstm else joined[0]

    def weights_of_layers(self) -> Iterator[list[Tensor]]:
        """The weights of each layer, all its directions, as torch takes them."""
        flat: list[Tensor] = [getattr(self, name) for name in self._flat_weights_names]
        each = len(flat) // self.num_layers
        for start in range(0, len(flat), each):
            yield flat[start : start + each]

    @property
    def num_directions(self) -> int:
        """One, or two where it runs backwards too."""
        return 2 if self.bidirectional else 1

    def _run(self, x: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, ...]:
        """One layer, all its directions: outputs, and what it ends with."""
        run: Any = _RUN[self.mode]
        given = (state[0], state[1]) if self.mode == "LSTM" else state[0]
        settings = (self.bias, 1, 0.0, self.training, self.bidirectional, self.batch_first)
        found: tuple[Tensor, ...] = run(x, given, weights, *settings)
        return found

    def _dropped(self, x: Tensor, drop: nn.Module) -> Tensor:
        dropped: Tensor = drop(x if self.batch_first else x.transpose(0, 1))
        return dropped if self.batch_first else dropped.transpose(0, 1)

    def _zeros(self, x: Tensor, *, count: int) -> list[Tensor]:
        sizes = [self.proj_size or self.hidden_size, self.hidden_size][:count]
        num_samples = x.shape[0 if self.batch_first else 1]
        rows = self.num_layers * self.num_directions
        return [x.new_zeros(rows, num_samples, size) for size in sizes]


class _SeededLstm(SeededRecurrent, nn.LSTM):
    """Also one of torch's, for code that asks."""


class _SeededGru(SeededRecurrent, nn.GRU):
    """As above."""


class _SeededRnn(SeededRecurrent, nn.RNN):
    """As above."""


_CLASSES: dict[str, type[SeededRecurrent]] = {
    "LSTM": _SeededLstm,
    "GRU": _SeededGru,
    "RNN_TANH": _SeededRnn,
    "RNN_RELU": _SeededRnn,
}


def drops_between_layers(layer: nn.RNNBase) -> bool:
    """Whether a recurrent layer drops, which none does after its last layer."""
    return not isinstance(layer, SeededRecurrent) and layer.dropout > 0 and layer.num_layers > 1


def seeded_recurrent(layer: nn.RNNBase, *, name: str) -> SeededRecurrent:
    """Give a recurrent layer of the same weights that draws by the address `name`."""
    kind = _CLASSES[layer.mode]
    seeded = object.__new__(kind)
    vars(seeded).update(vars(layer))
    vars(seeded)["_modules"] = dict(vars(layer)["_modules"])
    seeded.drops = nn.ModuleList(
        SeededDropout(layer.dropout, layer=f"{name}.{index}", channel_wise=False)
        for index in range(1, layer.num_layers)
    )
    return seeded
