"""Robust aggregation, beside what loops over devices and coordinates give."""

from collections.abc import Mapping, Sequence
from statistics import fmean, median

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_coordinator.training.aggregation import Models, aggregation
from edge_coordinator.training.aggregation_name import AggregationName
from edge_coordinator.training.averaging import average, believed_counts
from runtime.errors import SettingsError
from runtime.wire.frames import Tensor

COUNTS = {"d0": 40, "d1": 10, "d2": 30, "d3": 25, "d4": 60}


def _floats(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.astype(np.float64)


def _models(num_devices: int, *, seed: int = 0) -> tuple[dict[str, list[Tensor]], list[Tensor]]:
    generator = np.random.default_rng(seed)
    before: list[Tensor] = [
        generator.standard_normal((3, 2)).astype(np.float32),
        np.array(7, dtype=np.int64),
        generator.standard_normal(4).astype(np.float32),
    ]
    models = {
        f"d{index}": [
            (_floats(each) + 3 * generator.standard_normal(each.shape)).astype(each.dtype)
            for each in before
        ]
        for index in range(num_devices)
    }
    return models, before


def _aggregate(name: AggregationName, num_devices: int, *, trim: float = 0.2) -> list[Tensor]:
    models, before = _models(num_devices)
    return aggregation(name, trim=trim)(models, COUNTS, before)


def _assert_close(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(_floats(ours), _floats(theirs), rtol=1e-6, atol=1e-6)


def _by_loops(num_devices: int, num_out: int) -> list[Tensor]:
    """Coordinate for coordinate: without the `num_out` largest and smallest, the mean."""
    models, before = _models(num_devices)
    found = []
    for index, like in enumerate(before):
        result = np.zeros(like.shape)
        for at in np.ndindex(like.shape):
            values = sorted(float(model[index][at]) for model in models.values())
            result[at] = fmean(values[num_out : len(values) - num_out])
        whole = np.issubdtype(like.dtype, np.integer)
        found.append((np.rint(result) if whole else result).astype(like.dtype))
    return found


def test_the_mean_is_that_of_federated_averaging_bit_for_bit() -> None:
    models, before = _models(5)
    found = aggregation("mean", trim=0.2)(models, COUNTS, before)
    expected = average(models, COUNTS)
    assert [each.tobytes() for each in found] == [each.tobytes() for each in expected]


def test_an_average_sums_in_device_id_order_and_rounds_integers() -> None:
    values = {"d2": -1e18, "d0": 1e18, "d1": 1.0}  # In another order the 1 would be left.
    models = {device: [np.full(2, each), np.array(1)] for device, each in values.items()}
    models["d1"][1] = np.array(3)
    floats, integer = average(models, {"d0": 10, "d1": 20, "d2": 10, "absent": 50})
    assert floats.tolist() == [0.0] * 2
    assert integer.dtype == np.int64
    assert integer == 2
    models["d1"][1] = np.array(2)
    assert average(models, dict.fromkeys(models, 1))[1] == 1, "4/3 is rounded"
    models["d2"][1] = np.array(2)
    assert average(models, dict.fromkeys(models, 1))[1] == 2, "5/3 is rounded, not cut off"


@pytest.mark.parametrize(
    ("claimed", "believed"),
    [
        ([40, 20, 30, 25], [40, 20, 30, 25]),
        ([40, 20, 2**62, 25], [40, 20, 250, 25]),
        ([1, 30, 30, 30], [1, 30, 30, 30]),
        ([300, 30, 31, 30], [300, 30, 31, 30]),
        ([301, 30, 31, 30], [300, 30, 31, 30]),
        ([2**62], [2**62]),
        ([], []),
        ([1, 50], [1, 10]),
        ([50, 1], [10, 1]),
        ([10, 1], [10, 1]),
        ([0, 0, 5], [0, 0, 0]),
        ([9, 1, 400, 300, 7, 2], [9, 1, 70, 70, 7, 2]),
        ([70, 1, 400, 300, 7, 2], [70, 1, 70, 70, 7, 2]),
    ],
)
def test_a_claim_far_above_the_others_counts_as_ten_times_their_median(
    claimed: list[int], believed: list[int]
) -> None:
    names = [f"d{index}" for index in range(len(claimed))]
    found = believed_counts(dict(zip(names, claimed, strict=True)))
    assert [found[name] for name in names] == believed


@pytest.mark.parametrize(
    ("num_devices", "trim", "num_out"),
    [(1, 0.2, 0), (2, 0.4, 0), (3, 0.2, 1), (5, 0.2, 1), (5, 0.4, 2), (4, 0.3, 1)],
)
def test_a_trimmed_mean_leaves_out_the_ends_of_every_coordinate(
    num_devices: int, trim: float, num_out: int
) -> None:
    found = _aggregate("trimmed_mean", num_devices, trim=trim)
    _assert_close(found, _by_loops(num_devices, num_out))


@pytest.mark.parametrize("num_devices", [1, 2, 3, 4, 5])
def test_a_median_is_the_middle_of_every_coordinate(num_devices: int) -> None:
    _assert_close(_aggregate("median", num_devices), _by_loops(num_devices, (num_devices - 1) // 2))


@pytest.mark.parametrize("num_devices", [1, 2, 3, 5])
def test_clipped_updates_are_no_longer_than_their_median(num_devices: int) -> None:
    models, before = _models(num_devices)
    total = sum(COUNTS[device] for device in models)
    expected = []
    for index, like in enumerate(before):
        start = _floats(like)
        updates = {device: _floats(model[index]) - start for device, model in models.items()}
        longest = median(float(np.sqrt((each**2).sum())) for each in updates.values())
        move = np.zeros(start.shape)
        for device, update in updates.items():
            length = float(np.sqrt((update**2).sum()))
            move += COUNTS[device] / total * update * min(1.0, longest / max(length, 1e-30))
        whole = np.issubdtype(like.dtype, np.integer)
        expected.append((np.rint(start + move) if whole else start + move).astype(like.dtype))
    _assert_close(_aggregate("clipped", num_devices), expected)


@pytest.mark.parametrize("name", ["clipped", "trimmed_mean", "median"])
def test_one_of_five_moves_a_robust_aggregate_no_further_than_the_others_go(
    name: AggregationName,
) -> None:
    models, before = _models(5)
    models["d3"] = [(-1e6 * _floats(each)).astype(each.dtype) for each in before]
    honest = [model for device, model in models.items() if device != "d3"]
    found = aggregation(name, trim=0.2)(models, dict.fromkeys(models, 1), before)
    for index, start in enumerate(before):
        furthest = max(_distance(model[index], start) for model in honest)
        assert _distance(found[index], start) <= furthest + 1


def test_a_device_that_moved_nothing_is_clipped_like_any_other() -> None:
    models, before = _models(3)
    models["d1"] = list(before)
    found = aggregation("clipped", trim=0.2)(models, COUNTS, before)
    assert _distance(found[0], before[0]) > 0


def fails(_models: Models, counts: Mapping[str, int], _before: Sequence[Tensor]) -> list[Tensor]:
    """Fail with whatever the number of samples of the first device stands for."""
    raise ValueError(["", "its first line\nand a second"][counts["d0"]])


@pytest.mark.parametrize(("kind", "reason"), [(0, r"ValueError \(.*\)"), (1, "its first line")])
def test_an_aggregation_of_ones_own_that_fails_says_why_in_a_line(kind: int, reason: str) -> None:
    models, before = _models(1)
    own = aggregation(f"{__name__}:fails", trim=0.2)
    with pytest.raises(SettingsError, match=f"failed: {reason}$"):
        own(models, {"d0": kind}, before)


def in_double(models: Models, *_: object) -> list[Tensor]:
    """Give the first model, in float64 whatever it has."""
    return [_floats(each) for each in models["d0"]]


def transposed(models: Models, *_: object) -> list[Tensor]:
    """Give the first model with its axes the other way round."""
    return [each.T for each in models["d0"]]


def test_what_ones_own_aggregation_gives_has_the_types_and_the_shapes_of_the_model() -> None:
    models, before = _models(1)
    found = aggregation(f"{__name__}:in_double", trim=0.2)(models, COUNTS, before)
    assert [each.dtype for each in found] == [each.dtype for each in before]
    assert all(map(np.array_equal, found, models["d0"]))
    with pytest.raises(SettingsError, match="it has to give"):
        aggregation(f"{__name__}:transposed", trim=0.2)(models, COUNTS, before)


def no_numbers(models: Models, *_: object) -> list[Tensor]:
    """Divide by a sum that is 0."""
    return [np.full(each.shape, np.nan) for each in models["d0"]]


def test_an_aggregation_that_gives_no_numbers_is_named_and_not_the_learning_rate() -> None:
    models, before = _models(1)
    with pytest.raises(SettingsError, match=f"aggregation {__name__}:no_numbers gave numbers that"):
        aggregation(f"{__name__}:no_numbers", trim=0.2)(models, COUNTS, before)


def test_coordinates_are_put_together_in_float64() -> None:
    values = (2.0**30, 1.0, -(2.0**30))
    models = {f"d{i}": [np.array([value], np.float32)] for i, value in enumerate(values)}
    (found,) = aggregation("trimmed_mean", trim=0.0)(models, COUNTS, models["d0"])
    assert found.tolist() == [np.float32(1 / 3)]  # In float32 the one gets lost.


def _distance(left: Tensor, right: Tensor) -> float:
    return float(np.linalg.norm(_floats(left) - _floats(right)))
