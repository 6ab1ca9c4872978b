"""Which round is the best, and when nothing more is gained."""

import pytest

from tests.sites import standing_after


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(0.5, 1.0), (0.7, 2.0), (0.6, 0.1)], 2),
        ([(0.7, 1.0), (0.7, 0.9), (0.7, 1.1)], 2),
        ([(0.7, 1.0), (0.7, 1.0)], 1),
        ([(None, 1.0), (None, 0.5), (None, 0.7)], 2),
        ([(None, None), (0.1, 3.0), (None, None)], 2),
        ([(0.0, 3.0), (None, None)], 1),
    ],
    ids=["accuracy", "loss-of-equals", "earlier-of-equals", "loss-alone", "gaps", "nothing-right"],
)
def test_the_best_round_is_that_of_highest_accuracy_then_lowest_loss_then_the_earlier(
    scores: list[tuple[float | None, float | None]], best: int
) -> None:
    standing, _ = standing_after(*scores)
    assert standing.best is not None
    assert standing.best.round == best


def test_a_run_without_an_evaluation_has_no_best_round() -> None:
    standing, _ = standing_after((None, None), (None, None))
    assert standing.best is None


def test_small_gains_add_up_to_one_and_rounds_without_an_evaluation_do_not_count() -> None:
    creeping = [(0.50, 1.0), (0.52, 1.0), (None, None), (0.54, 1.0), (0.56, 1.0)]
    before, _ = standing_after(*creeping[:-1], least_gain=0.05)
    after, _ = standing_after(*creeping, least_gain=0.05)
    assert (before.num_without_gain, after.num_without_gain) == (2, 0)
