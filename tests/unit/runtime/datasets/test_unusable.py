"""Samples of a data set of the user's own that cannot be used: left out, named and counted."""

import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn
from torch.utils.data import Dataset, Subset

from device_agent.agent.own_data import OwnData
from edge_coordinator.training.evaluation import evaluate_layers
from runtime.datasets.items import load_items
from runtime.datasets.normalise import measure_features
from runtime.datasets.samples import Samples
from runtime.datasets.shard import make_shard
from runtime.errors import SettingsError
from runtime.models.losses import load_loss
from runtime.wire.frames import StepId
from tests.turn import ASSIGNMENT

NAMES = ("no", "yes")


class Pictures(Dataset[object]):
    """Samples whose value is their number and whose label is its parity; some cannot be read."""

    classes = NAMES

    def __init__(self, count: int, broken: Callable[[int], bool], *, says: bool = True) -> None:
        self.count, self.broken, self.reads = count, broken, 0
        if says:
            self.targets = [index % 2 for index in range(count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], int]:
        self.reads += 1
        if self.broken(index):
            raise OSError("image file is truncated")
        return np.full(3, float(index)), index % 2


def _samples(data: Dataset[object]) -> Samples:
    return load_items([data], name="own").train


@pytest.mark.parametrize("says", [True, False], ids=["labels known", "labels read"])
def test_a_broken_sample_is_stood_in_for_by_the_next_and_said_once(
    *, says: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assignment = ASSIGNMENT.model_copy(update={"held_out": 0.25, "num_classes": 2})
    own = [
        make_shard("d0", assignment, _samples(Pictures(60, {0, 7, 20}.__contains__, says=says)))
        for _ in range(2)
    ]
    with caplog.at_level(logging.WARNING):
        for epoch in range(40):
            step = StepId(assignment.run, 1, 0, epoch)
            (x, y), again = (shard.draw(step) for shard in own)
            assert (x[:, 0] % 2 == y).all()
            assert not {0.0, 7.0, 20.0} & set(x[:, 0].tolist())
            assert all(map(np.array_equal, (x, y), again))
        x, y = own[0].evaluation()
    assert len(x) == len(y) == len(own[0].held_out)
    assert (x[:, 0] % 2 == y).all()
    told = [text for text in caplog.messages if "sample 7 of own cannot be read: image" in text]
    assert len(told) == 2 * (not says) + 2 * says  # Each of the two data sets, once.


def test_a_test_set_and_a_measurement_leave_broken_samples_out() -> None:
    samples = _samples(Pictures(30, {3, 4}.__contains__))
    x, y = samples.without_unusable(slice(0, 10))
    assert x[:, 0].tolist() == [0, 1, 2, 5, 6, 7, 8, 9]
    assert y.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    rest = [index for index in range(30) if index not in {3, 4}]
    assert measure_features(samples).mean == pytest.approx([np.mean(rest)] * 3)


def test_the_others_are_read_at_most_once_more_however_many_are_broken() -> None:
    data = Pictures(50, range(42, 50).__contains__)
    samples, first = _samples(data), data.reads
    x, _ = samples.without_unusable(slice(0, 50))
    assert x[:, 0].tolist() == [*range(42)]
    assert data.reads - first == 50 + 42


def test_a_batch_without_a_usable_sample_leaves_an_evaluation_finite() -> None:
    samples = _samples(Pictures(251, {250}.__contains__))  # One batch, and one of one sample.
    found = evaluate_layers(nn.Linear(3, 2), samples, load_loss("cross_entropy", base_dir=Path()))
    assert math.isfinite(found.loss)


def test_data_with_a_broken_sample_still_grow() -> None:
    few, more = (_samples(Pictures(count, {3}.__contains__)) for count in (20, 30))
    assert OwnData("d0", few, grows=True).grow(more) == 10


def test_too_many_broken_samples_are_no_oversight() -> None:
    shard = make_shard("d0", ASSIGNMENT, _samples(Pictures(200, lambda index: index % 3 == 1)))
    steps = [StepId(ASSIGNMENT.run, 1, 0, epoch) for epoch in range(100)]
    with pytest.raises(SettingsError, match=r"11 of \d+ samples cannot be used, the last: sample"):
        [shard.draw(step) for step in steps]
    with pytest.raises(SettingsError, match="own has no sample that can be used"):
        _samples(Pictures(5, lambda _: True))


def test_a_part_of_a_data_set_has_the_labels_and_names_of_the_whole() -> None:
    whole = Pictures(20, lambda _: False)
    samples = _samples(Subset(Subset(whole, range(10)), [1, 2, 9]))
    assert samples.y.tolist() == [1, 0, 1]
    assert samples.class_names == NAMES
    assert whole.reads == 1  # To see a sample's shape, and not for the labels.
