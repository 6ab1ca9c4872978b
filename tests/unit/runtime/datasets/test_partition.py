"""Who holds which samples."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runtime.datasets.partition import class_counts, partition
from runtime.errors import SettingsError

SPECS = ["iid", "classes:1", "classes:2", "classes:4", "dirichlet:0.3", "dirichlet:10"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=200),
    st.sampled_from(SPECS),
    st.integers(1, 12),
    st.integers(0, 2**40),
)
def test_parts_are_disjoint_sorted_and_not_empty_or_there_is_an_error(
    label_list: list[int], spec: str, num_devices: int, seed: int
) -> None:
    labels = np.array(label_list)
    try:
        parts = partition(labels, spec, num_devices=num_devices, seed=seed)
    except SettingsError:
        assume(False)  # noqa: FBT003
    assert len(parts) == num_devices
    assert all(len(part) > 0 and (np.diff(part) > 0).all() for part in parts)
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together)
    again = partition(labels, spec, num_devices=num_devices, seed=seed)
    assert all(np.array_equal(part, other) for part, other in zip(parts, again, strict=True))
    if not spec.startswith("classes"):
        assert len(together) == len(labels)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 10), st.integers(1, 40), st.integers(0, 1000))
def test_each_device_holds_exactly_k_classes_and_every_class_is_held(
    k: int, num_devices: int, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, 10, 5000)
    parts = partition(labels, f"classes:{k}", num_devices=num_devices, seed=seed)
    counts = class_counts(labels, parts, num_classes=10)
    assert (np.count_nonzero(counts, axis=1) == k).all()
    if num_devices * k >= 10:
        assert counts.sum(axis=0).tolist() == np.bincount(labels).tolist()


def test_thirty_devices_of_two_classes_are_as_large_as_each_other() -> None:
    labels = np.repeat(np.arange(10), 600)
    parts = partition(labels, "classes:2", num_devices=30, seed=1)
    assert {len(part) for part in parts} <= {199, 200, 201}


def test_iid_parts_differ_by_one_sample_at_most() -> None:
    parts = partition(np.zeros(103, dtype=np.int64), "iid", num_devices=10, seed=0)
    assert {len(part) for part in parts} == {10, 11}


def test_a_smaller_alpha_is_a_larger_skew() -> None:
    labels = np.repeat(np.arange(10), 600)
    largest_share = []
    for alpha in ("0.1", "1", "100"):
        parts = partition(labels, f"dirichlet:{alpha}", num_devices=10, seed=4)
        counts = class_counts(labels, parts, num_classes=10)
        largest_share.append(float(np.mean(counts.max(axis=1) / counts.sum(axis=1))))
    assert largest_share[0] > largest_share[1] + 0.1 > largest_share[2] + 0.2


def test_another_seed_is_another_partition() -> None:
    labels = np.repeat(np.arange(10), 20)
    first, second = (partition(labels, "iid", num_devices=2, seed=seed)[0] for seed in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("spec", "num_devices", "message"),
    [
        ("iid", 41, "device 40 of 41 would get no samples: there are only 40 samples"),
        ("classes:5", 2, "classes:5: the data has 4 classes"),
        ("classes:4", 15, "device .* of 15 would get no samples: class 0 has 10 samples for 15"),
        ("dirichlet:0.001", 30, "device .* of 30 would get no samples: none of 100 draws"),
        ("dirichlet:-1", 2, "needs a number above 0"),
        ("shards:2", 2, "no data partition 'shards:2'; there are iid, classes:2"),
    ],
)
def test_a_partition_that_cannot_be_says_why(spec: str, num_devices: int, message: str) -> None:
    labels = np.repeat(np.arange(4), 10)
    with pytest.raises(SettingsError, match=message):
        partition(labels, spec, num_devices=num_devices, seed=0)
