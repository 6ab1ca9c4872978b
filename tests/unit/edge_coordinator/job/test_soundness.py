"""When a run's model is spoilt, and which checkpoints there are to go back to."""

import math

import pytest

from edge_coordinator.job.soundness import UNTRIED, Soundness
from tests.sites import make_round


def _after(*losses: float | None) -> Soundness:
    soundness = UNTRIED
    for number, loss in enumerate(losses, 1):
        why = "" if loss is None else soundness.why_spoilt(loss)
        finite = loss if loss is not None and math.isfinite(loss) else None
        soundness = soundness.after(make_round(number, test_loss=finite, spoilt=why))
    return soundness


@pytest.mark.parametrize(
    ("losses", "num_spoilt", "last_sound"),
    [
        ((2.3, 1.0, 0.1, 1.2), 0, 4),  # Far above the best, but better than at the beginning.
        ((2.3, 1.0, 0.1, 2.4), 1, 3),
        ((2.3, 1.0, 9.9), 0, 3),  # Worse than at the beginning, but not far above the best.
        ((0.1, 0.1, 5.0, 5.0, None, 5.0), 3, 2),
        ((0.1, 0.1, 5.0, 5.0, 0.2), 0, 5),
        ((1e6,), 0, 1),  # Nothing is known yet.
    ],
)
def test_an_evaluation_far_above_the_best_and_the_first_is_spoilt(
    losses: tuple[float | None, ...], num_spoilt: int, last_sound: int
) -> None:
    found = _after(*losses)
    assert (found.num_spoilt, found.last_sound, found.is_lost) == (num_spoilt, last_sound, False)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_lost_at_once(loss: float) -> None:
    assert _after(2.3, loss).is_lost
    assert not _after(2.3, loss, 1.0).is_lost


def test_who_went_back_begins_to_count_anew_and_keeps_the_best() -> None:
    spoilt = _after(0.1, 9.0, 9.0)
    report = make_round(4, test_loss=9.0, spoilt="far above", went_back_to=(1,))
    back = spoilt.after(report)
    assert (back.num_spoilt, back.num_returns, back.best_loss) == (0, 1, 0.1)
