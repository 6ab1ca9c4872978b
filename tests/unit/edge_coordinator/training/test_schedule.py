"""What a schedule multiplies the rates by."""

import pytest

from edge_coordinator.job.file import load_job
from edge_coordinator.training.schedule import Schedule


def _factors(num_rounds: int, **settings: object) -> list[float]:
    given = {f"training.schedule.{key}": value for key, value in settings.items()}
    schedule = load_job(None, given).training.schedule
    rates = Schedule(**schedule.model_dump(), num_rounds=num_rounds)
    return [round(rates.rate_factor(round_), 6) for round_ in range(1, num_rounds + 1)]


def test_cosine_falls_from_one_to_its_factor_in_any_number_of_rounds() -> None:
    assert _factors(5, name="cosine", factor=0.2, warm_up=0) == [1.0, 0.882843, 0.6, 0.317157, 0.2]
    assert _factors(1, name="cosine", factor=0.2, warm_up=0) == [1.0]


@pytest.mark.parametrize(
    ("name", "factors"),
    [("constant", [1, 1, 1, 1]), ("step", [1, 1, 0.5, 0.5]), ("exponential", [1, 0.707107, 0.5])],
)
def test_a_step_and_an_exponential_halve_the_rate_unless_told_otherwise(
    name: str, factors: list[float]
) -> None:
    assert _factors(len(factors), name=name, every=2, warm_up=0) == factors


def test_in_the_warm_up_the_rate_rises_in_equal_steps_to_the_schedules_own() -> None:
    assert _factors(6, name="constant", warm_up=0.5) == [0.25, 0.5, 0.75, 1, 1, 1]
