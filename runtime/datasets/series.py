"""Windows over long series of sensor readings: csv or parquet files with a row for each reading.

A window takes `length` readings, the next begins `stride` readings later, and none crosses from one
series into another, nor over a row that was left out. Only the readings are held, however much
windows overlap.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from runtime.datasets.csv_text import import_polars
from runtime.datasets.options import SourceOptions
from runtime.datasets.samples import DataSet, Samples, make_data_set, make_samples
from runtime.datasets.stored import Windows
from runtime.datasets.tables import (
    as_numbers,
    as_targets,
    columns_of,
    read_frame,
    used_columns,
    without_missing,
)
from runtime.errors import SettingsError

if TYPE_CHECKING:
    import polars as pl

OPTIONS = (
    *("target", "targets", "features", "drop", "missing", "separator", "decimal", "test"),
    *("length", "stride", "series", "label", "ahead", "layout"),
)
"""What windows take after the `?`."""
SUFFIXES = (".csv", ".parquet")


class _Readings(NamedTuple):
    """Of all series, one after the other."""

    x: NDArray[np.float32]
    """[reading, feature]"""
    y: NDArray[Any]
    """Targets, [reading, ...]."""
    series: NDArray[np.int64]
    """The number of its series, of each reading."""
    features: tuple[str, ...]


def load_windows(files: Sequence[Path], *, options: SourceOptions) -> DataSet:
    """Cut windows out of each file's series; the last ones of each are for testing."""
    readings = _read(files, options)
    length, stride = options.count("length", 128), options.count("stride", 64)
    ahead = options.count("ahead", 0) if "ahead" in options.values else 0
    bounds = np.flatnonzero(np.diff(readings.series, prepend=-1, append=-1))
    train, test = list[NDArray[np.int64]](), list[NDArray[np.int64]]()
    for start, end in pairwise(bounds):
        starts = np.arange(start, end - length - ahead + 1, stride)
        kept, held = _part(starts, options.test_fraction, reach=length + ahead)
        train.append(kept)
        test.append(held)
    parts = [np.concatenate(each) for each in (train, test)]
    if not any(map(len, parts)):
        raise SettingsError(
            f"{options.source} has no series of {length + ahead} readings or more, the length of a "
            "window; take a smaller length="
        )
    if not len(parts[0]) or (options.test_fraction and not len(parts[1])):
        raise SettingsError(
            f"{options.source}: test={options.test_fraction:g} leaves no window to "
            f"{'test' if len(parts[0]) else 'train'} on; take another, or a smaller length= or "
            "stride="
        )
    made = [
        _windows(readings, starts, options, length=length, ahead=ahead)
        for starts in parts
        if len(starts)
    ]
    return make_data_set(made[0], made[1] if len(made) > 1 else None, name=options.source)


def _read(files: Sequence[Path], options: SourceOptions) -> _Readings:
    polars = import_polars("windows")
    _check_endings(files)
    frames = [read_frame([path], scheme=path.suffix[1:].lower(), options=options) for path in files]
    for path, frame in zip(files, frames, strict=True):
        if frame.columns != frames[0].columns:
            raise SettingsError(
                f"{path} has other columns than {files[0]}; files of one source have the same"
            )
    of_file = np.repeat(np.arange(len(frames)), [len(frame) for frame in frames])
    whole = polars.concat(frames, how="vertical_relaxed").with_columns(
        polars.Series(_OF_FILE, of_file)
    )
    return _taken(whole, options)


def _check_endings(files: Sequence[Path]) -> None:
    for path in files:
        if path.suffix.lower() not in SUFFIXES:
            raise SettingsError(f"{path} is no {' or '.join(SUFFIXES)} file; windows are of these")


_OF_FILE, _ROW = " number of the file", " number of the row"


def _taken(whole: "pl.DataFrame", options: SourceOptions) -> _Readings:
    keys = [_OF_FILE, *columns_of(whole, "series", options)]
    features, targets = used_columns(whole, options, beside=keys)
    rows = without_missing(
        whole.with_row_index(_ROW).select(_ROW, *keys, *features, *targets), options
    )
    is_new = np.diff(rows[_ROW].to_numpy().astype(np.int64), prepend=-1) != 1
    for key in keys:
        is_new |= np.asarray((rows[key] != rows[key].shift()).fill_null(value=True))
    x, y = as_numbers(rows.select(*features)), as_targets(rows.select(*targets), options)
    return _Readings(x, y, np.cumsum(is_new), tuple(features))


def _part(
    starts: NDArray[np.int64], fraction: float, *, reach: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold the last windows out, and leave out those that share readings with them."""
    held = starts[len(starts) - int(len(starts) * fraction) :]
    kept = starts[: len(starts) - len(held)]
    return kept[kept + reach <= held[0]] if len(held) else kept, held


def _windows(
    readings: _Readings,
    starts: NDArray[np.int64],
    options: SourceOptions,
    *,
    length: int,
    ahead: int,
) -> Samples:
    y = readings.y
    _check_label(y, options)
    layout = options.text("layout", "time", among=("time", "channels"))
    stored = Windows(readings.x, starts, length, channels_first=layout == "channels")
    if options.text("label", "last") == "last":
        labels = y[starts + length - 1 + ahead]
    else:
        of_windows = sliding_window_view(y, length, axis=0)[starts]
        labels = np.array([_most(each) for each in of_windows])
    samples = make_samples(x=stored, y=labels, where=options.source)
    axis = 0 if layout == "channels" else 1
    return replace(samples, feature_axis=axis, feature_names=readings.features)


def _check_label(y: NDArray[Any], options: SourceOptions) -> None:
    """SettingsError if a window is to have the most frequent of what has no such."""
    if options.text("label", "last", among=("last", "most")) == "last":
        return
    if y.ndim > 1 or y.dtype.kind == "f":
        raise SettingsError(
            f"{options.source}: label=most takes one target, a class; of "
            f"{'several' if y.ndim > 1 else 'numbers'} take label=last"
        )
    if "ahead" in options.values:
        raise SettingsError(f"{options.source}: label=most and ahead= exclude each other")


def _most(labels: NDArray[Any]) -> Any:  # noqa: ANN401 - text or a number
    """The most frequent label of a window; of equals the first in order."""
    names, counts = np.unique(labels, return_counts=True)
    return names[np.argmax(counts)]
