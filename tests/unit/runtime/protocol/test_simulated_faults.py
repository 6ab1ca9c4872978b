"""Whole jobs of a tiny network under faults, each from its seed."""

import pytest

from benchmarks.simulated_faults.job import SimulatedJob, undisturbed, why_wrong

EXPECTED = undisturbed()
SEEDS_AT_ONCE = 50


@pytest.mark.parametrize("first", range(0, 200, SEEDS_AT_ONCE))
def test_every_seed_ends_in_the_weights_of_the_undisturbed_run(first: int) -> None:
    seeds = range(first, first + SEEDS_AT_ONCE)
    assert {seed: wrong for seed in seeds if (wrong := why_wrong(seed, EXPECTED))} == {}


def test_a_seed_is_a_run() -> None:
    runs = [SimulatedJob(3, is_faulty=True) for _ in range(2)]
    assert len({run.run() for run in runs}) == 1
    assert runs[0].now_s == runs[1].now_s > 50.0
