"""What is looked at of a device-side model: its parts apart, and what cannot be."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from edge_coordinator.rounds.bounded_turn import TurnBounds
from edge_coordinator.rounds.server_thread import EdgeWorker
from edge_coordinator.training.bounds import Bounds
from edge_coordinator.training.cuts import ALIKE
from runtime.wire.frames import Tensor

PARTS = ("parameter", "running_var", "num_batches_tracked", "step", "exp_avg", "exp_avg_sq")
BEFORE: Sequence[Tensor] = [
    np.ones(4, dtype=np.float32),
    np.ones(4, dtype=np.float32),
    np.array(3, dtype=np.int64),
    np.array(3.0, dtype=np.float32),
    np.zeros(4, dtype=np.float32),
    np.zeros(4, dtype=np.float32),
]


@pytest.fixture
def turn() -> Iterator[TurnBounds]:
    with EdgeWorker(num_threads=1) as worker:
        yield TurnBounds(Bounds({}, 1), worker, PARTS, ALIKE, learning_rate=0.1, batch_shares={})


def _moved(place: int = 0, by: float = 0.0) -> list[Tensor]:
    """An honest model after a turn, with one tensor moved by so much more."""
    model = [(each + np.array(0.01)).astype(each.dtype) for each in BEFORE]
    model[place] = (model[place] + np.array(by)).astype(model[place].dtype)
    return model


def _caught(turn: TurnBounds, poisoned: Sequence[Tensor]) -> dict[str, str]:
    models = {f"d{index}": _moved() for index in range(4)}
    return turn.models(models | {"d4": poisoned}, BEFORE)


@pytest.mark.parametrize(
    ("place", "by", "words"),
    [
        (0, 1.0, "weights whose update"),
        (1, 1.0, "normalisation statistics whose update"),
        (4, 1.0, "optimiser state whose update"),
        (1, -2.0, "running_var below 0: -0.99"),
        (3, -9.0, "step below 0"),
        (5, -0.02, "exp_avg_sq below 0"),
    ],
)
def test_each_part_of_a_model_is_looked_at_by_itself(
    turn: TurnBounds, place: int, by: float, words: str
) -> None:
    caught = _caught(turn, _moved(place, by))
    assert list(caught) == ["d4"]
    assert words in caught["d4"]


def test_an_update_of_ordinary_size_passes_whatever_its_direction(turn: TurnBounds) -> None:
    assert not _caught(turn, _moved(0, -0.02))
