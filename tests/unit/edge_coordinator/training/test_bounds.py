"""What a device may send, by what the others send and by its own past."""

import numpy as np
import pytest

from edge_coordinator.training.bounds import (
    LARGEST,
    NUM_DEVIATIONS,
    Bounds,
    Sent,
    factor,
    length_of,
    sample_size,
)

ORDINARY = {"d0": 1.0, "d1": 2.0, "d2": 0.5, "d3": 1.5, "d4": 0.8}


def _bounds(*steps: dict[str, float]) -> Bounds:
    bounds = Bounds({}, 3)
    for step in steps:
        assert not bounds.check(Sent.SMASHED, step)
    return bounds


@pytest.mark.parametrize("size", [200.0, 1e30, float("inf")])
def test_what_is_far_beyond_the_others_is_caught_and_nobody_else_is(size: float) -> None:
    caught = _bounds().check(Sent.SMASHED, ORDINARY | {"d2": size})
    assert list(caught) == ["d2"]
    assert f"smashed data of size {size:.3g}" in caught["d2"]


def test_one_that_sends_next_to_nothing_slanders_nobody() -> None:
    bounds = _bounds(dict.fromkeys(ORDINARY, 1.0), {"d0": 1e-9, "d1": 1.0, "d2": 1.0})
    assert not bounds.check(Sent.SMASHED, {"d0": 0.0, "d1": 3.0, "d2": 30.0})


def test_of_two_devices_nobody_can_say_which_is_right() -> None:
    bounds = _bounds({"d0": 1.0, "d1": 1e6})
    assert list(bounds.check(Sent.SMASHED, {"d0": 1.0, "d1": 2 * LARGEST})) == ["d1"]


def test_a_device_alone_in_its_step_is_compared_with_what_others_sent_before() -> None:
    bounds = _bounds({"d0": 1.0}, {"d1": 1.0}, {"d2": 1.0})
    assert list(bounds.check(Sent.SMASHED, {"d3": 1e4})) == ["d3"]


def test_its_own_past_vouches_for_a_device_but_not_for_ever() -> None:
    others = {"d0": 1.0, "d1": 1.0, "d2": 1.0}
    bounds, size = _bounds(others | {"d3": 1.0}), 1.0
    while not bounds.check(Sent.SMASHED, others | {"d3": size}):
        size *= 10  # In steps that are never far beyond the one before.
    assert factor(Sent.SMASHED) < size <= 10 * factor(Sent.SMASHED) ** 2
    fresh = _bounds(others)
    assert list(fresh.check(Sent.SMASHED, others | {"d3": size / 10})) == ["d3"]


def test_a_size_that_was_refused_makes_no_room_for_the_next() -> None:
    bounds = _bounds(ORDINARY)
    for _ in range(5):
        assert list(bounds.check(Sent.SMASHED, ORDINARY | {"d2": 1e6})) == ["d2"]


def test_where_devices_differ_much_more_is_taken() -> None:
    wide = {f"d{index}": 10.0**index for index in range(7)}
    assert not _bounds().check(Sent.SMASHED, wide)


def test_gradients_that_vanished_for_all_may_come_back() -> None:
    bounds = Bounds({}, 3)
    for size in (1.0, 1e-3, 1e-9, 0.0):
        assert not bounds.check(Sent.GRADIENT, dict.fromkeys(ORDINARY, size))
    bounds.at_cut(4)
    assert not bounds.check(Sent.GRADIENT, {"d0": 1.0})


def test_no_bound_is_below_what_looking_at_each_device_alone_gives() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        count = int(generator.integers(1, 9))
        sizes = dict(zip("abcdefgh", np.exp(generator.normal(0, 4, count)).tolist(), strict=False))
        caught = Bounds({}, 3).check(Sent.SMASHED, sizes)
        assert sorted(caught) == sorted(d for d in sizes if _is_out(d, sizes))


def _is_out(device: str, sizes: dict[str, float]) -> bool:
    """The rule once more, of a device without a past."""
    others = sorted(np.log(size) for other, size in sizes.items() if other != device)
    if len(others) < 2:
        return bool(sizes[device] > LARGEST)
    middle = others[len(others) // 2]
    deviations = sorted(abs(size - middle) for size in others)
    deviation = 1.4826 * deviations[len(others) // 2]
    most = middle + max(np.log(factor(Sent.SMASHED)), NUM_DEVIATIONS * deviation)
    return bool(np.log(sizes[device]) > min(most, np.log(LARGEST)))


def test_one_bad_value_in_one_sample_shows() -> None:
    samples = np.ones((16, 6, 14, 14), dtype=np.float32)
    assert sample_size(samples) == pytest.approx(1.0)
    samples[3, 0, 0, 0] = 1e5
    assert sample_size(samples) > 1e3
    samples[3, 0, 0, 0] = 3e38
    assert sample_size(samples) == float("inf")


def test_the_length_of_a_model_is_over_all_its_tensors() -> None:
    tensors = [np.array([3.0], dtype=np.float32), np.array([[4.0, 12.0]], dtype=np.float32)]
    assert length_of(tensors) == pytest.approx(13.0)
    assert length_of([]) == 0.0
