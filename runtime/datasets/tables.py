"""Tables: a row is a sample, its columns are numbers, and one or several of them are the target.

Columns of the inputs are in alphabetical order unless they are listed, so that two devices whose
files have them in another order agree.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.datasets.options import SourceOptions, part_for_testing
from runtime.datasets.samples import DataSet, make_samples
from runtime.distribution import install_hint
from runtime.errors import SettingsError
from runtime.wire.class_names import in_words

if TYPE_CHECKING:
    import polars as pl

OPTIONS = ("target", "targets", "features", "drop", "missing", "separator", "test")
"""What a table takes after the `?`."""
TARGETS = ("auto", "floats", "names")
"""What target values are: as their type says, always numbers to come near to, always names."""
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
"""Texts of a csv file that mean that there is no value."""
SEPARATORS = {",": ",", ";": ";", "tab": "\t", "space": " "}


def load_table(paths: Sequence[Path], *, scheme: str, options: SourceOptions) -> DataSet:
    """Read files of one table, rows after rows, as float32 [row, column] and their targets."""
    frame = read_frame(paths, scheme=scheme, options=options)
    features, targets = used_columns(frame, options)
    frame = without_missing(frame.select(*features, *targets), options)
    x, y = as_numbers(frame.select(*features)), as_targets(frame.select(*targets), options)
    return part_for_testing(make_samples(x=x, y=y, where=options.source), options)


def used_columns(
    frame: "pl.DataFrame", options: SourceOptions, *, beside: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Names of the columns to learn by, and of those to learn; those of `beside` are neither."""
    targets = columns_of(frame, "target", options)
    if not targets:
        raise SettingsError(
            f"{options.source} needs the column to learn: add ?target=COLUMN; there are "
            f"{in_words(frame.columns)}"
        )
    features = columns_of(frame, "features", options)
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
    polars = _import_polars(scheme)
    frames: list[pl.DataFrame] = []
    for path in paths:
        try:
            if scheme == "parquet":
                frame = polars.read_parquet(path)
            else:
                frame = polars.read_csv(
                    path,
                    separator=_separator(path, options),
                    infer_schema_length=None,
                    null_values=list(MISSING),
                )
        except (polars.exceptions.PolarsError, OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise SettingsError(f"cannot read {path} as {scheme}: {reason}") from error
        if frames and frame.columns != frames[0].columns:
            raise SettingsError(
                f"{path} has the columns {in_words(frame.columns)}, but {paths[0]} has "
                f"{in_words(frames[0].columns)}; files of one table have the same"
            )
        frames.append(frame)
    whole: pl.DataFrame = polars.concat(frames, how="vertical_relaxed")
    return whole


def table_files(path: Path, *, scheme: str) -> list[Path]:
    """One file, or those of a folder in alphabetical order."""
    if not path.is_dir():
        return [path]
    files = sorted(path.glob(f"*.{scheme}"))
    if not files:
        raise SettingsError(f"the folder {path} has no .{scheme} file in it")
    return files


def without_missing(frame: "pl.DataFrame", options: SourceOptions) -> "pl.DataFrame":
    """Leave rows without a value out where the options say so; else SettingsError names the first.

    What is no finite number counts as none.
    """
    polars = _import_polars("csv")
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
    if options.text("missing", "refuse", among=("refuse", "drop")) == "drop":
        kept: pl.DataFrame = frame.filter(is_kept)
        return kept
    row = int(np.argmin(is_kept))
    column = next(name for name in frame.columns if is_missing[name][row])
    raise SettingsError(
        f"{options.source} has no number in column {column!r} of row {row + 1} (of "
        f"{(~is_kept).sum()} such rows); add missing=drop to leave such rows out"
    )


def check_numbers(frame: "pl.DataFrame", options: SourceOptions) -> None:
    """SettingsError for a column that can be no input."""
    for column in frame:
        if not (column.dtype.is_numeric() or str(column.dtype) == "Boolean"):
            raise SettingsError(
                f"column {column.name!r} of {options.source} is {_kind(column)}; inputs are "
                "numbers: leave it out by drop=, or list the inputs by features="
            )


def as_numbers(frame: "pl.DataFrame") -> NDArray[np.float32]:
    """Take columns as float32 [row, column]."""
    columns = [np.asarray(column.to_numpy(), dtype=np.float32) for column in frame]
    return np.stack(columns, axis=1)


def as_targets(frame: "pl.DataFrame", options: SourceOptions) -> NDArray[Any]:
    """Take one column as targets [row], several as [row, column]."""
    kind = options.text("targets", "auto", among=TARGETS)
    columns = [_target(column, kind, options) for column in frame]
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)


def _target(column: "pl.Series", kind: str, options: SourceOptions) -> NDArray[Any]:
    """Take a target's column: text and truth values name classes, whole numbers count them."""
    is_number = column.dtype.is_numeric()
    if kind == "floats" and is_number:
        return np.asarray(column.to_numpy(), dtype=np.float32)
    if kind == "floats":
        raise SettingsError(
            f"column {column.name!r} of {options.source} is {_kind(column)}; targets=floats takes "
            "numbers"
        )
    if is_number and kind == "auto":
        return np.asarray(column.to_numpy())
    return np.array([str(value) for value in column.to_list()], dtype=np.str_)


def _kind(column: "pl.Series") -> str:
    text = str(column.dtype)
    return "text" if text in ("String", "Categorical") else text.lower()


def columns_of(frame: "pl.DataFrame", option: str, options: SourceOptions) -> list[str]:
    """The columns that an option lists."""
    names = options.names(option, among=frame.columns)
    for name in names:
        if name not in frame.columns:
            raise SettingsError(
                f"{options.source} has no column {name!r}, which {option} names; there are "
                f"{in_words(frame.columns)}"
            )
    return names


def _separator(path: Path, options: SourceOptions) -> str:
    """What stands between columns: as stated, else what the first line has most of."""
    stated = options.text("separator", "auto", among=("auto", *SEPARATORS))
    if stated != "auto":
        return SEPARATORS[stated]
    with path.open(encoding="utf-8", errors="replace") as file:
        header = file.readline()
    return max(",;\t", key=header.count)


def _import_polars(scheme: str) -> Any:  # noqa: ANN401 - a module
    try:
        import polars  # noqa: PLC0415 - only tables need it
    except ImportError as error:
        raise SettingsError(
            f"the data source '{scheme}:' needs polars: {install_hint('tables')}"
        ) from error
    return polars
