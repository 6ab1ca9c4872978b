"""Which round is the best, and when nothing more is gained."""

import pytest

from edge_coordinator.job.standing import BEGINNING, Standing
from runtime.wire.published import RoundReport
from tests.builders import make_job
from tests.noise import shards
from tests.sites import make_round


def _after(
    *scores: tuple[float | None, float | None], least_gain: float = 0.0
) -> tuple[Standing, RoundReport]:
    standing = BEGINNING
    for number, (accuracy, loss) in enumerate(scores, 1):
        report = make_round(number, test_accuracy=accuracy, test_loss=loss)
        standing = standing.after(report, least_gain=least_gain)
    return standing, report


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
    standing, _ = _after(*scores)
    assert standing.best is not None
    assert standing.best.round == best


def test_a_run_without_an_evaluation_has_no_best_round() -> None:
    standing, _ = _after((None, None), (None, None))
    assert standing.best is None


def test_small_gains_add_up_to_one_and_rounds_without_an_evaluation_do_not_count() -> None:
    creeping = [(0.50, 1.0), (0.52, 1.0), (None, None), (0.54, 1.0), (0.56, 1.0)]
    before, _ = _after(*creeping[:-1], least_gain=0.05)
    after, _ = _after(*creeping, least_gain=0.05)
    assert (before.num_without_gain, after.num_without_gain) == (2, 0)


@pytest.mark.parametrize(
    ("scores", "gained_in"),
    [([(0.9, 1.0), (0.9, 0.5), (0.8, 0.1)], 1), ([(None, 1.0), (None, 0.9), (None, 1.2)], 2)],
    ids=["of-accuracy", "of-loss"],
)
def test_a_job_is_over_after_so_many_evaluations_without_a_gain(
    scores: list[tuple[float | None, float | None]], gained_in: int
) -> None:
    patience = len(scores) - gained_in
    settings = {"plan.clusters": 1, "training.rounds": 9, "evaluation.patience": patience}
    job, _ = make_job(shards((40,), (1, 28, 28)), settings)
    standing, report = _after(*scores)
    said = job.why_over(report, standing)
    assert said == f"nothing gained since round {gained_in} (patience {patience})"
    earlier, report_before = _after(*scores[:-1])
    assert job.why_over(report_before, earlier) == ""
