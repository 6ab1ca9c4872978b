"""Whole jobs of a tiny network under faults, each from its seed."""

import pytest

from benchmarks.simulated_faults.seeds import NUM_KINDS, job_of, undisturbed, why_wrong

SEEDS_AT_ONCE = 50


@pytest.mark.parametrize("first", range(0, 200, SEEDS_AT_ONCE))
def test_every_seed_ends_in_the_weights_of_the_undisturbed_run(first: int) -> None:
    seeds = range(first, first + SEEDS_AT_ONCE)
    assert {seed: wrong for seed in seeds if (wrong := why_wrong(seed))} == {}


def test_micro_batches_and_aggregated_gradients_are_other_trainings() -> None:
    assert len({undisturbed(kind) for kind in range(NUM_KINDS)}) == NUM_KINDS


@pytest.mark.parametrize("seed", [3, 4])
def test_a_seed_is_a_run(seed: int) -> None:
    runs = [job_of(seed) for _ in range(2)]
    assert len({run.run() for run in runs}) == 1
    assert runs[0].now_s == runs[1].now_s > 50.0
