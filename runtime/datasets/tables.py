"""Tables: a row is a sample, its columns are numbers, and one or several of them are the target.

Columns of the inputs are in alphabetical order unless they are listed, so that two devices whose
files have them in another order agree.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.datasets.csv_text import import_polars, read_csv
from runtime.datasets.options import SourceOptions, part_for_testing
from runtime.datasets.samples import DataSet, make_samples
from runtime.errors import SettingsError
from runtime.wire.names import in_words

if TYPE_CHECKING:
    import polars as pl

OPTIONS = ("target", "targets", "features", "drop", "missing", "separator", "decimal", "test")
"""What a table takes after the `?`."""
_DECIMAL = re.compile(r"'\s*[+-]?\d+,\d+\s*'")
TARGETS = ("auto", "floats", "names")
"""What target values are: as their type says, always numbers to come near to, always names."""


def load_table(paths: Sequence[Path], *, scheme: str, options: SourceOptions) -> DataSet:
    """Read files of one table, rows after rows, as float32 [row, column] and their targets."""
    frame = read_frame(paths, scheme=scheme, options=options)
    features, targets = used_columns(frame, options)
    frame = without_missing(frame.select(*features, *targets), options)
    x, y = as_numbers(frame.select(*features)), as_targets(frame.select(*targets), options)
    samples = make_samples(x=x, y=y, where=options.source)
    return part_for_testing(replace(samples, feature_names=tuple(features)), options)


def used_columns(
    frame: "pl.DataFrame", options: SourceOptions, *, beside: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Names of the columns to learn by, and of those to learn; those of `beside` are neither."""
    targets = columns_of(frame, "target", options)
    if not targets:
        raise SettingsError(
            f"{options.source} needs the column to learn: add ?target=COLUMN; there are "
            f"{in_words(_shown(frame))}"
        )
    features = columns_of(frame, "features", options)
    given = [*targets, *beside, *features]
    if twice := [name for index, name in enumerate(given) if name in given[:index]]:
        raise SettingsError(f"{options.source}: column {twice[0]!r} is named for two things")
    others = {*targets, *beside, *columns_of(frame, "drop", options)}
    features = features or sorted(name for name in frame.columns if name not in others)
    if not features:
        raise SettingsError(
            f"{options.source} has no column beside {in_words(targets)} to learn by"
        )
    check_numbers(frame.select(*features), options)
    return features, targets


def read_frame(paths: Sequence[Path], *, scheme: str, options: SourceOptions) -> "pl.DataFrame":
    """Read files of one kind; SettingsError names the one that cannot be read or is another's."""
    polars = import_polars(scheme)
    frames: list[pl.DataFrame] = []
    for path in paths:
        try:
            if scheme == "parquet":
                frame = polars.read_parquet(path, glob=False)
            else:
                frame = read_csv(path, options)
        except (polars.exceptions.PolarsError, csv.Error, OSError, EOFError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            if "more fields" in reason:
                reason = "a row has more cells than the first line, which names the columns"
            raise SettingsError(f"cannot read {path} as {scheme}: {reason}") from error
        if frames and frame.columns != frames[0].columns:
            raise SettingsError(
                f"{path} has the columns {in_words(frame.columns)}, but {paths[0]} has "
                f"{in_words(frames[0].columns)}; files of one table have the same"
            )
        frames.append(frame)
    whole: pl.DataFrame = polars.concat(frames, how="vertical_relaxed")
    if whole.is_empty():
        raise SettingsError(f"{options.source} has no row beside the names of its columns")
    return whole


def table_files(path: Path, *, suffixes: Sequence[str]) -> list[Path]:
    """One file, or those of a folder in alphabetical order, but for hidden ones."""
    if not path.is_dir():
        return [path]
    files = sorted(
        each
        for each in path.iterdir()
        if each.suffix.lower() in suffixes and not each.name.startswith(".") and each.is_file()
    )
    if not files:
        raise SettingsError(f"the folder {path} has no {' or '.join(suffixes)} file in it")
    return files


def without_missing(frame: "pl.DataFrame", options: SourceOptions) -> "pl.DataFrame":
    """Leave rows without a value out where the options say so; else SettingsError names the first.

    What is no finite number counts as none.
    """
    polars = import_polars("csv")
    unusable = [
        polars.col(name).is_null() | ~polars.col(name).is_finite()
        if dtype.is_float()
        else polars.col(name).is_null()
        for name, dtype in frame.schema.items()
    ]
    is_missing = frame.select(unusable)
    is_kept = np.asarray(~is_missing.select(polars.any_horizontal(polars.all())).to_series())
    if is_kept.all():
        return frame
    row = int(np.argmin(is_kept))
    column = next(name for name in frame.columns if is_missing[name][row])
    said = f"{options.source} has no value (or no finite one) in column {column!r} of row {row + 1}"
    if options.text("missing", "refuse", among=("refuse", "drop")) != "drop":
        raise SettingsError(
            f"{said} (of {(~is_kept).sum()} such rows); add missing=drop to leave such rows out"
        )
    if not is_kept.any():
        raise SettingsError(f"{said}, nor is any other row complete; leave columns out by drop=")
    kept: pl.DataFrame = frame.filter(is_kept)
    return kept


def check_numbers(frame: "pl.DataFrame", options: SourceOptions) -> None:
    """SettingsError for a column that can be no input."""
    for column in frame:
        if column.null_count() == len(column):
            raise SettingsError(
                f"column {column.name!r} of {options.source} has no value in any row; leave it out "
                "by drop="
            )
        if not (column.dtype.is_numeric() or str(column.dtype) == "Boolean"):
            example = _example(column)
            hint = "; if that is a number, add decimal=," if _DECIMAL.search(example) else ""
            if options.values.get("decimal") == "," and "." in example:
                hint = "; with decimal=, a number has no dot in it"
            raise SettingsError(
                f"column {column.name!r} of {options.source} is {_kind(column)}{example}; "
                f"inputs are numbers: leave it out by drop=, or list the inputs by features={hint}"
            )


def _example(column: "pl.Series") -> str:
    """Show the first value of a column of text that is no number."""
    polars = import_polars("csv")
    if _kind(column) != "text":
        return ""
    text = column.cast(polars.String)
    is_other = text.is_not_null() & text.cast(polars.Float64, strict=False).is_null()
    row = is_other.arg_max()
    return f" ({str(text[row])[:20]!r} in row {row + 1})" if row is not None else ""


def as_numbers(frame: "pl.DataFrame") -> NDArray[np.float32]:
    """Take columns as float32 [row, column]."""
    polars = import_polars("csv")
    columns = [column.cast(polars.Float32).to_numpy() for column in frame]
    return np.stack(columns, axis=1)


def as_targets(frame: "pl.DataFrame", options: SourceOptions) -> NDArray[Any]:
    """Take one column as targets [row], several as [row, column]."""
    kind = options.text("targets", "auto", among=TARGETS)
    columns = [_target(column, kind, options) for column in frame]
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)


def _target(column: "pl.Series", kind: str, options: SourceOptions) -> NDArray[Any]:
    """Take a target's column: text and truth values name classes, whole numbers count them."""
    polars = import_polars("csv")
    is_number = column.dtype.is_numeric()
    if column.dtype.is_nested() or (kind == "floats" and not is_number):
        raise SettingsError(
            f"column {column.name!r} of {options.source} is {_kind(column)}; "
            + (
                "targets=floats takes numbers"
                if kind == "floats"
                else "targets are numbers or text"
            )
        )
    if is_number and kind != "names":
        return _numbers(column, as_floats=kind == "floats", options=options)
    if column.dtype == polars.Binary:
        return np.array(column.to_list(), dtype=np.object_)
    return np.array([str(value) for value in column.to_list()], dtype=np.str_)


def _numbers(column: "pl.Series", *, as_floats: bool, options: SourceOptions) -> NDArray[Any]:
    polars = import_polars("csv")
    if as_floats or not column.dtype.is_integer():
        return column.cast(polars.Float32).to_numpy()
    if (most := int(str(column.max()))) >= 2**63:
        raise SettingsError(
            f"column {column.name!r} of {options.source} has {most}; whole numbers in a target lie "
            "below 2^63: if they are ids, add targets=names"
        )
    return np.asarray(column.cast(polars.Int64).to_numpy())


def _kind(column: "pl.Series") -> str:
    text = str(column.dtype)
    is_text = text in ("String", "Categorical") or text.startswith("Enum")
    return "text" if is_text else text.lower()


def columns_of(frame: "pl.DataFrame", option: str, options: SourceOptions) -> list[str]:
    """The columns that an option lists."""
    names = options.names(option, among=frame.columns)
    for name in names:
        if name not in frame.columns:
            raise SettingsError(
                f"{options.source} has no column {name!r}, which {option} names; there are "
                f"{in_words(_shown(frame))}"
            )
    return names


def _shown(frame: "pl.DataFrame") -> list[str]:
    """Names of columns without those that windows add, which begin with a blank."""
    return [name for name in frame.columns if not name.startswith(" ")]
