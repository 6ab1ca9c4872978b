"""Link shares against brute force, and against giving subcarriers one at a time."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_coordinator.planning.plan import InfeasiblePlanError
from edge_coordinator.planning.spectrum import (
    Waits,
    allocate_fractions,
    allocate_shares,
    allocate_subcarriers,
    equal_shares,
)
from profiles.link import IndependentLinks, SharedLink, Subcarriers
from profiles.units import Counts, Floats

TENTHS = st.integers(0, 30).map(lambda tenths: tenths / 10)  # so that ties are common


def all_divisions(num_subcarriers: int, num_devices: int) -> Counts:
    """List every way to give each device at least one subcarrier, [way, device]."""
    edges = combinations(range(1, num_subcarriers), num_devices - 1)
    return np.array([np.diff((0, *inner, num_subcarriers)) for inner in edges])


def one_at_a_time(fixed_s: Floats, link_s: Floats, num_subcarriers: int) -> Counts:
    """Give each spare subcarrier to the device that would finish last."""
    subcarriers = np.ones(len(fixed_s), dtype=np.int64)
    for _ in range(num_subcarriers - len(fixed_s)):
        subcarriers[np.argmax(fixed_s + link_s / subcarriers)] += 1
    return subcarriers


def random_waits(seed: int, *, num_clusters: int, num_devices: int) -> Waits:
    """Draw clusters whose slowest forward and slowest backward are often different devices."""
    generator = np.random.default_rng(seed)
    shape = (num_clusters, num_devices)
    compute_s, up_s = 10 ** generator.uniform(-1, 0.5, (2, *shape))
    down_s = up_s / generator.uniform(0.5, 5, shape)
    fixed_s, link_s = np.stack([compute_s, 2 * compute_s]), np.stack([up_s, down_s])
    return Waits(np.ones(2), fixed_s, link_s / 3)


def test_the_spare_subcarrier_goes_to_the_slowest_device() -> None:
    subcarriers = allocate_subcarriers(
        fixed_s=np.array([[1.0, 1.0]]),
        link_s=np.array([[1.0, 2.0]]),
        present=np.ones((1, 2), dtype=np.bool_),
        num_subcarriers=3,
    )
    assert subcarriers.tolist() == [[1, 2]]


@given(st.lists(st.tuples(TENTHS, TENTHS), min_size=1, max_size=5), st.integers(0, 9))
def test_all_at_once_equals_one_at_a_time(devices: list[tuple[float, float]], spare: int) -> None:
    fixed_s, link_s = np.array(devices).T
    num_subcarriers = len(devices) + spare
    at_once = allocate_subcarriers(
        fixed_s=np.array([[*fixed_s, 0.0]]),
        link_s=np.array([[*link_s, 0.0]]),
        present=np.array([[True] * len(devices) + [False]]),
        num_subcarriers=num_subcarriers,
    )
    expected = one_at_a_time(fixed_s, link_s, num_subcarriers)
    assert at_once[0].tolist() == [*expected.tolist(), 0]


def test_no_division_of_subcarriers_lets_the_last_device_finish_earlier() -> None:
    waits = random_waits(0, num_clusters=50, num_devices=4)
    fixed_s, link_s = waits.finish_fixed_s, waits.finish_link_s
    subcarriers = allocate_subcarriers(
        fixed_s=fixed_s, link_s=link_s, present=np.ones_like(fixed_s, np.bool_), num_subcarriers=12
    )
    every_s = fixed_s + link_s / all_divisions(12, 4)[:, np.newaxis]
    greedy_s = (fixed_s + link_s / subcarriers).max(axis=-1)
    assert greedy_s == pytest.approx(every_s.max(axis=-1).min(axis=0))


def test_exchanges_bring_a_cluster_to_within_a_percent_of_the_best_division() -> None:
    waits = random_waits(1, num_clusters=200, num_devices=4)
    present = np.ones((200, 4), dtype=np.bool_)
    best_s = np.min([waits.total_s(division / 12) for division in all_divisions(12, 4)], axis=0)
    loss = {
        exchanges: waits.total_s(
            allocate_shares(waits, present=present, medium=Subcarriers(12), max_exchanges=exchanges)
        )
        / best_s
        - 1
        for exchanges in (0, 64)
    }
    assert loss[0].mean() > 0.01  # the last device finishing early is not the whole of it
    assert loss[64].mean() < 0.001
    assert loss[64].max() < 0.05


def test_fractions_finish_together_and_use_the_whole_link() -> None:
    waits = random_waits(2, num_clusters=50, num_devices=5)
    fixed_s, link_s = waits.finish_fixed_s, waits.finish_link_s
    present = np.ones_like(fixed_s, dtype=np.bool_)
    shares = allocate_fractions(fixed_s=fixed_s, link_s=link_s, present=present)
    finish_s = fixed_s + link_s / shares
    assert shares.sum(axis=-1) == pytest.approx(np.ones(50))
    assert finish_s == pytest.approx(np.broadcast_to(finish_s[:, :1], finish_s.shape))


def test_a_freely_divided_link_is_no_worse_than_one_of_subcarriers() -> None:
    waits = random_waits(3, num_clusters=100, num_devices=4)
    present = np.ones((100, 4), dtype=np.bool_)
    best_s = np.min([waits.total_s(division / 16) for division in all_divisions(16, 4)], axis=0)
    shares = allocate_shares(waits, present=present, medium=SharedLink(), max_exchanges=256)
    assert shares.sum(axis=-1) == pytest.approx(np.ones(100))
    assert (waits.total_s(shares) / best_s).mean() < 1


def test_independent_links_are_not_divided() -> None:
    waits = random_waits(4, num_clusters=1, num_devices=3)
    present = np.ones((1, 3), dtype=np.bool_)
    shares = allocate_shares(waits, present=present, medium=IndependentLinks(), max_exchanges=9)
    assert shares.tolist() == [[1.0, 1.0, 1.0]]


def test_equal_shares_are_whole_subcarriers() -> None:
    present = np.array([[True, True, True], [True, True, False]])
    shares = equal_shares(present=present, medium=Subcarriers(8))
    assert (shares * 8).tolist() == [[3.0, 3.0, 2.0], [4.0, 4.0, 8.0]]


def test_more_devices_than_subcarriers_are_refused_with_the_numbers() -> None:
    waits = random_waits(5, num_clusters=1, num_devices=4)
    present = np.ones((1, 4), dtype=np.bool_)
    with pytest.raises(InfeasiblePlanError, match="4 devices in a cluster, 3 subcarriers"):
        allocate_shares(waits, present=present, medium=Subcarriers(3), max_exchanges=0)
    with pytest.raises(InfeasiblePlanError, match="4 devices in a cluster, 3 subcarriers"):
        equal_shares(present=present, medium=Subcarriers(3))


def test_a_cluster_of_nobody_is_divided_without_a_word_and_changes_no_other() -> None:
    """Swaps with an empty place are priced before they are ruled out."""
    fixed_s, link_s = np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[3.0, 1.0], [0.0, 0.0]])
    present = np.array([[True, True], [False, False]])
    shares = allocate_fractions(fixed_s=fixed_s, link_s=link_s, present=present)
    alone = allocate_fractions(fixed_s=fixed_s[:1], link_s=link_s[:1], present=present[:1])
    assert shares.tolist() == [alone[0].tolist(), [1.0, 1.0]]
