"""Tables as samples: csv and parquet files, and a sentence for each that cannot be used."""

import gzip
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
            r"column 'kind' of csv:houses.csv is text .'flat' in row 1.; inputs are numbers: lea",
        ),
        ("target=price&drop=kind", "in column 'area' of row 4 .of 1 such rows.; add mis"),
        ("target=kind&targets=floats&drop=area", "'kind' of csv:houses.csv is text; targets=flo"),
        ("target=price&colour=red", "no option 'colour'; csv takes target, targets, features"),
        ("target=kind&test=2&drop=area", "test is '2'; it is the fraction to test on"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_place(tmp_path: Path, query: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        _load(tmp_path, query)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfa,y\r\n1.5,0\r\n2,1\r\n",
        b"a,y\r1.5,0\r2,1\r",
        b"a, y\n 1.5, 0\n+2, 1\n\n\n",
        b'"a"|"y"\n"1.5"|0\n2|1\n',
        b",a,y,\n0,1.5,0,\n1,2,1,\n",
        gzip.compress(b"a,y\n1.5,0\n2,1\n", mtime=0),
    ],
)
def test_a_table_is_the_same_however_a_program_wrote_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a[1].csv").write_bytes(content)
    data = load_source("csv:a[1].csv?target=y", base_dir=tmp_path)
    assert (data.train.x.tolist(), data.train.y.tolist()) == ([[1.5], [2]], [0, 1])
    assert data.train.y.dtype == np.int64


def test_names_of_columns_may_have_any_sign_and_names_of_classes_stay_as_written(
    tmp_path: Path,
) -> None:
    text = '"a,1;2",b+c\n1,001\n2,002\n'
    data = _load(tmp_path, "target=b+c&targets=names", text)
    assert data.train.class_names == ("001", "002")
    assert data.train.x.tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("content", "query", "words"),
    [
        (b"a,y,y\n1,2,3\n", "target=y", "two columns named 'y'"),
        (b"a,y\n1,2\n", "target=y&features=a,y", "column 'y' is named for two things"),
        (b"a,y\n1,2\n", "target=y&target=a", "target is there twice"),
        (b"a,y\n", "target=y", "has no row beside the names"),
        (b"a,y\n,2\n", "target=y&missing=drop", "column 'a' .* has no value in any row"),
        (b"a,y\n1,9223372036854775808\n", "target=y", "has 9223372036854775808; whole numbers"),
        (b"# a note\na,y\n1,2\n", "target=y", "more cells than the first line"),
        (b"gr\xf6sse,y\n1,2\n", "target=y", "no UTF-8 text .its first line has the byte 0xf6"),
        ("a,y\n1,2\n".encode("utf-16"), "target=y", "is UTF-16 text"),
        (b"a,y\n1,2\0\n", "target=y", "is no text"),
    ],
)
def test_a_csv_file_that_says_two_things_or_nothing_is_refused(
    tmp_path: Path, content: bytes, query: str, words: str
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(SettingsError, match=words):
        load_source(f"csv:a.csv?{query}", base_dir=tmp_path)


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


def test_numbers_may_have_a_decimal_comma(tmp_path: Path) -> None:
    text = "m\u00b2;price\n 70,5;+210,25\n12;3\n"
    with pytest.raises(
        SettingsError, match=r"\(' 70,5' in row 1\).*if that is a number, add decimal="
    ):
        _load(tmp_path, "target=price", text)
    data = _load(tmp_path, "target=price&decimal=,", text)
    assert data.train.x.tolist() == [[70.5], [12]]
    assert data.train.y.tolist() == [210.25, 3]
    with pytest.raises(SettingsError, match="between columns and within numbers"):
        _load(tmp_path, "target=price&decimal=,")


def test_a_dot_between_thousands_is_no_decimal_point(tmp_path: Path) -> None:
    text = "area;rooms;price\n1.234;2,5;1\n7.500;3;0\n"
    with pytest.raises(
        SettingsError, match=r"'area'.* is text \('1.234' in row 1\).*a number has no dot in it"
    ):
        _load(tmp_path, "target=price&decimal=,", text)
    data = _load(tmp_path, "target=price&decimal=,&drop=area", text)
    assert data.train.x.tolist() == [[2.5], [3]]
