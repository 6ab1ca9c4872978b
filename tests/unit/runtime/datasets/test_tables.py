"""Tables as samples: csv and parquet files, and a sentence for each that cannot be used."""

from pathlib import Path

import numpy as np
import pytest

from runtime.datasets.samples import DataSet
from runtime.datasets.sources import load_source
from runtime.errors import SettingsError

polars = pytest.importorskip("polars")

HOUSES = """rooms,area,sold,price,kind
3,70.5,true,210.0,flat
5,120,false,400.5,house
2,40,true,150.0,flat
4,,false,300.0,house
"""


def _load(folder: Path, query: str, text: str = HOUSES) -> DataSet:
    (folder / "houses.csv").write_text(text)
    return load_source(f"csv:houses.csv?{query}", base_dir=folder)


def test_a_column_is_learnt_from_the_others_in_alphabetical_order(tmp_path: Path) -> None:
    data = _load(tmp_path, "target=price&drop=kind&missing=drop")
    assert data.train.x.tolist() == [[70.5, 3, 1], [120, 5, 0], [40, 2, 1]]
    assert data.train.y.tolist() == [210.0, 400.5, 150.0]
    assert data.train.y.dtype == np.float32
    assert data.num_classes is None


def test_text_names_classes_and_whole_numbers_count_them(tmp_path: Path) -> None:
    data = _load(tmp_path, "target=kind&features=rooms,price")
    assert data.train.class_names == ("flat", "house")
    assert data.train.y.tolist() == [0, 1, 0, 1]
    assert data.train.x[0].tolist() == [3, 210]
    assert _load(tmp_path, "target=rooms&features=price").num_classes == 6
    assert _load(tmp_path, "target=rooms&features=price&targets=names").num_classes == 4
    assert _load(tmp_path, "target=rooms&features=price&targets=floats").train.y.dtype == "f4"


def test_several_targets_are_the_columns_of_one(tmp_path: Path) -> None:
    assert _load(tmp_path, "target=price,rooms&features=sold").train.y.shape == (4, 2)


def test_a_parquet_file_gives_what_its_csv_file_gives(tmp_path: Path) -> None:
    query = "target=kind&missing=drop"
    data = _load(tmp_path, query)
    (tmp_path / "parts").mkdir()
    whole = polars.read_csv(tmp_path / "houses.csv")
    whole.head(3).write_parquet(tmp_path / "parts" / "a.parquet")
    whole.tail(1).write_parquet(tmp_path / "parts" / "b.parquet")
    same = load_source(f"parquet:parts?{query}", base_dir=tmp_path)
    assert same.train.x.tolist() == data.train.x.tolist()
    assert same.train.y.tolist() == data.train.y.tolist()


def test_the_part_to_test_on_has_its_share_of_each_class(tmp_path: Path) -> None:
    rows = "\n".join(f"{row},{'ab'[row % 3 == 0]}" for row in range(30))
    data = _load(tmp_path, "target=kind&test=0.2", f"row,kind\n{rows}\n")
    assert data.test is not None
    assert np.bincount(data.test.y).tolist() == [4, 2]
    both = np.concatenate([data.train.x, data.test.x])
    assert sorted(both[:, 0].tolist()) == list(range(30))


def test_columns_may_be_parted_by_semicolons(tmp_path: Path) -> None:
    data = _load(tmp_path, "target=b", "a;b\n1.5;2.5\n")
    assert (data.train.x.tolist(), data.train.y.tolist()) == ([[1.5]], [2.5])


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", r"needs the column to learn: add \?target=COLUMN; there are rooms, area, sold"),
        ("target=cost", "has no column 'cost', which target names; there are rooms"),
        (
            "target=price",
            "column 'kind' of csv:houses.csv is text; inputs are numbers: leave it out",
        ),
        ("target=price&drop=kind", "no number in column 'area' of row 4 .of 1 such rows.; add mis"),
        ("target=kind&targets=floats&drop=area", "'kind' of csv:houses.csv is text; targets=flo"),
        ("target=price&colour=red", "no option 'colour'; csv takes target, targets, features"),
        ("target=kind&test=2&drop=area", "test is '2'; it is the fraction to test on"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_place(tmp_path: Path, query: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        _load(tmp_path, query)


def test_files_that_are_no_table_are_named(tmp_path: Path) -> None:
    (tmp_path / "odd.parquet").write_bytes(b"nothing")
    with pytest.raises(SettingsError, match=r"cannot read .*odd\.parquet as parquet"):
        load_source("parquet:odd.parquet?target=a", base_dir=tmp_path)
    (tmp_path / "two").mkdir()
    with pytest.raises(SettingsError, match=r"has no \.csv file in it"):
        load_source("csv:two?target=a", base_dir=tmp_path)
    (tmp_path / "two" / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "two" / "b.csv").write_text("a,c\n1,2\n")
    with pytest.raises(SettingsError, match=r"b\.csv has the columns a, c, but .*a\.csv has a, b"):
        load_source("csv:two?target=a", base_dir=tmp_path)
