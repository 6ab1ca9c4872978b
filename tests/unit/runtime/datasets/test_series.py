"""Windows over series of readings, and data sets of the user's own: what is drawn, and when."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from runtime.datasets.items import load_items, parts_of
from runtime.datasets.samples import DataSet, make_samples
from runtime.datasets.shard import make_shard
from runtime.datasets.sources import load_source
from runtime.errors import SettingsError
from runtime.models.graph.rows import rows_of
from tests.turn import ASSIGNMENT, step_at


def _write(path: Path, who: str, count: int, *, first: int = 0, gap: int | None = None) -> None:
    rows = [f"{first + i},{-i},{who},{'on' if i % 4 < 2 else 'off'}" for i in range(count)]
    if gap is not None:
        rows[gap] = f",1,{who},on"
    path.write_text("\n".join(["ax,ay,who,state", *rows]) + "\n")


def _windows(folder: Path, query: str) -> DataSet:
    pytest.importorskip("polars")
    return load_source(f"windows:{folder.name}?{query}", base_dir=folder.parent)


def test_windows_cross_neither_files_nor_series_nor_gaps(tmp_path: Path) -> None:
    _write(tmp_path / "a.csv", "ann", 10)
    _write(tmp_path / "b.csv", "bob", 9, first=100, gap=4)
    query = "target=state&drop=who&series=who&length=4&stride=3&missing=drop"
    data = _windows(tmp_path, query)
    first = data.train.x[:, 0, 0]
    assert first.tolist() == [0, 3, 6, 100, 105]
    assert data.sample_shape == (4, 2)
    assert data.train.class_names == ("off", "on")
    assert data.train.y[:3].tolist() == [0, 0, 1]  # Of readings 3, 6 and 9.
    assert _windows(tmp_path, f"{query}&layout=channels").sample_shape == (2, 4)


def test_windows_to_test_on_share_no_reading_with_those_to_train_on(tmp_path: Path) -> None:
    _write(tmp_path / "a.csv", "ann", 40)
    data = _windows(
        tmp_path, "target=ay&features=ax&length=8&stride=2&test=0.25&ahead=1&targets=floats"
    )
    assert data.test is not None
    assert data.train.x.max() < data.test.x.min()
    last = data.test.x[:, -1, 0]
    assert data.test.y.tolist() == (-last - 1).tolist()  # The reading after the window.


def test_a_window_that_fits_nowhere_is_told(tmp_path: Path) -> None:
    _write(tmp_path / "a.csv", "ann", 10)
    with pytest.raises(SettingsError, match="no series of 50 readings or more"):
        _windows(tmp_path, "target=ay&features=ax&length=50")
    for query, words in {
        "length=9&test=0.1": "test=0.1 leaves no window to test on",
        "length=9&stride=1&test=0.5": "test=0.5 leaves no window to train on",
        "length=99999999999999": "a whole number from 1 to 1000000000",
        "length=2&label=most&ahead=1": "label=most and ahead= exclude each other",
        "length=2&label=most&targets=floats": "label=most takes one target, a class",
        "length=2&series=ay": "column 'ay' is named for two things",
    }.items():
        with pytest.raises(SettingsError, match=words):
            _windows(tmp_path, f"target=ay&drop=state,who&{query}")


class Noisy(Dataset[tuple[torch.Tensor, int]]):
    """Each item with noise of its own, by every generator that transforms use."""

    classes = ("even", "odd")

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        noise = torch.rand(3) + float(np.random.random())  # noqa: NPY002
        return noise + index, index % 2


def test_what_is_random_in_a_data_set_follows_from_the_address_of_the_step() -> None:
    data = load_items([Noisy()], name="own")
    assert data.train.class_names == ("even", "odd")
    assignment = ASSIGNMENT.model_copy(update={"classes": ("even", "odd"), "num_classes": 2})
    before = torch.random.get_rng_state()
    again = [make_shard("d0", assignment, data.train).draw(step_at(1))[0] for _ in range(2)]
    other = make_shard("d0", assignment, data.train).draw(step_at(2))[0]
    assert again[0].tolist() == again[1].tolist()
    assert sorted(again[0][:, 0] % 1) != sorted(other[:, 0] % 1)
    assert torch.equal(torch.random.get_rng_state(), before)
    taken = data.train.take([3, 5])
    assert taken.x.astype(int)[:, 0].tolist() == data.train.x.astype(int)[[3, 5], 0].tolist()


class Stream(IterableDataset[tuple[torch.Tensor, float]]):
    """Five items, one after another."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, float]]:
        return ((torch.full((2,), float(i)), i / 2) for i in range(5))


def test_what_can_only_be_gone_through_is_read_once() -> None:
    data = load_items([Stream()], name="own")
    assert data.train.x[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert data.train.y.tolist() == [0, 0.5, 1, 1.5, 2]


def test_two_data_sets_are_to_train_and_to_test_on() -> None:
    pair = (
        TensorDataset(torch.zeros(4, 3), torch.arange(4)),
        TensorDataset(torch.ones(2, 3), torch.arange(2)),
    )
    data = load_items(parts_of(pair), name="own")
    assert data.test is not None
    assert (len(data.train), data.test.y.tolist()) == (4, [0, 1])
    assert parts_of((np.zeros((2, 3)), np.zeros(2))) == []


class Rows:
    """As `datasets.Dataset` is: items are dictionaries, and columns are there as a whole."""

    column_names = ("image", "label")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, object]:
        return {"image": Image.new("RGB", (4, 4 + index), "white"), "label": "ab"[index]}


def test_images_of_a_data_set_are_bytes_and_another_size_is_named() -> None:
    data = load_items([Rows()], name="own")
    assert data.train.x_of(np.array([0])).shape == (1, 3, 4, 4)
    assert data.train.x_of(np.array([0])).max() == 1.0
    assert data.train.class_names == ("a", "b")
    with pytest.raises(SettingsError, match=r"sample 1 has the shape \(3, 5, 4\), others have"):
        data.train.x_of(np.array([1]))


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([1, 2], "an item of own is a int; it has to be a pair"),
        ([(np.zeros(2), 0), (np.zeros(3), 0)], r"sample 1 of own has the shape \(3,\)"),
        ([(np.zeros(2), [0]), (np.zeros(2), [0, 1])], "sample 1 of the targets of own has the sh"),
        ([("text", 0)], "inputs of type <U4; they have to be numbers"),
        ([(torch.ones(2, device="meta"), 0)], "inputs that are no array"),
        ([{"a": 1, "b": 2}], "has the keys a, b; it needs an input and one of label, labels"),
    ],
)
def test_an_item_that_is_no_pair_is_told(items: list[object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_items([iter(items)], name="own")


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (np.full(2, 0.5), "sample 1 has float64, others have uint8"),
        (np.array([np.nan, 1]), "sample 1 has numbers that are not finite"),
    ],
)
def test_an_item_of_another_kind_than_the_first_is_refused_when_it_is_drawn(
    second: np.ndarray[tuple[int], np.dtype[np.float64]], words: str
) -> None:
    inputs = [np.zeros(2, np.uint8), second]
    data = load_items([List([(each, 0) for each in inputs])], name="own")
    assert data.train.x_of(np.array([0])).tolist() == [[0, 0]]
    with pytest.raises(SettingsError, match=words):
        data.train.x_of(np.array([1]))


class List(Dataset[object]):
    """Items as they are."""

    def __init__(self, items: list[object]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        return self.items[index]


def test_a_file_larger_than_memory_is_read_where_it_is_drawn(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(12, dtype=np.float64).reshape(6, 2))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    samples = make_samples(x=mapped, y=np.arange(6), where="own")
    taken = samples.take([4, 1]).take([1])
    assert not isinstance(taken.stored, np.ndarray)
    assert (str(taken.x.dtype), taken.x.tolist()) == ("float32", [[2, 3]])
    assert taken.y.tolist() == [1]


def test_an_item_of_several_inputs_is_one_row_in_the_order_of_their_names() -> None:
    items: list[dict[str, Any]] = [
        {"input_ids": np.array([7, 9]), "attention_mask": np.array([1, 0]), "label": 1},
        {"attention_mask": np.array([1, 1]), "input_ids": np.array([3, 4]), "label": 0},
    ]
    data = load_items([items], name="own")
    rows = data.train.x_of(np.array([0, 1]))
    assert rows.tolist() == [[1, 0, 7, 9], [1, 1, 3, 4]]
    inputs = {"input_ids": (2,), "attention_mask": (2,)}
    batch = {name: np.stack([item[name] for item in items]) for name in inputs}
    assert np.array_equal(rows_of(batch, inputs), rows)
