"""Arrays from files: an npz file, or a folder of npy files, which stay on the disk."""

import logging
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from runtime.datasets.samples import DataSet, make_data_set, make_samples
from runtime.errors import SettingsError

log = logging.getLogger(__name__)

NAMES = (("x_train", "y_train", "x_test", "y_test"), ("x_train", "y_train"), ("x", "y"))
"""Which arrays there may be."""
_NUM_LOOKED_AT = 64
"""Samples by which it is told whether numbers look like pixels."""
_FEW, _WHITE = 127, 255
"""Pixels go beyond the one, and not beyond the other."""
_UNREADABLE = (
    *(OSError, ValueError, EOFError, AttributeError, TypeError),
    *(BadZipFile, zlib.error),
)


def load_npz(path: Path, *, name: str) -> DataSet:
    """Read an npz file into memory."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise SettingsError(
                f"{path} holds one array, as .npy files do; an npz file has x and y (np.savez), "
                "and a folder of .npy files is npy:DIR"
            )
        with loaded as file:
            arrays = {key: _plain(file, key, path) for key in file.files}
    except _UNREADABLE as error:
        raise SettingsError(f"cannot read {path} as an npz file of arrays: {error}") from error
    return _named(arrays, path, name=name)


def _plain(file: Mapping[str, NDArray[Any]], key: str, path: Path) -> NDArray[Any]:
    try:
        return file[key]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raise SettingsError(
            f"{path}: {key} holds objects of Python; save text as np.array(values, dtype=str), and "
            "numbers as an array of numbers"
        ) from error


def load_npy_folder(path: Path, *, name: str) -> DataSet:
    """Map a folder's `x.npy`, `y.npy` and so on into memory; of inputs, only batches are read."""
    arrays = {}
    named = {name for names in NAMES for name in names}
    for file in sorted(path.glob("*.npy")):
        if file.stem not in named:
            continue
        try:
            arrays[file.stem] = np.load(file, mmap_mode="r", allow_pickle=False)
        except _UNREADABLE as error:
            raise SettingsError(f"cannot read {file} as an array: {error}") from error
    return _named(arrays, path, name=name)


def _named(arrays: Mapping[str, NDArray[Any]], path: Path, *, name: str) -> DataSet:
    for names in NAMES:
        if all(key in arrays for key in names):
            return from_arrays([arrays[key] for key in names], name=name)
    found = ", ".join(arrays) or "none of the arrays"
    raise SettingsError(
        f"{path} holds {found}; it needs x and y, or x_train, y_train, x_test and y_test"
    )


def _warn_of_pixels(x: NDArray[Any], *, where: str) -> None:
    """Say that only bytes are taken as pixels, where numbers look like them."""
    first = np.asarray(x[:_NUM_LOOKED_AT])
    if first.ndim < 3 or first.dtype == np.uint8 or first.dtype.kind not in "fiu" or not first.size:
        return
    least, most = float(first.min()), float(first.max())
    if least >= 0 and _FEW < most <= _WHITE and (first == np.rint(first)).all():
        log.warning(
            "%s has whole numbers from %g to %g as %s, which stay as they are; only bytes (uint8) "
            "become 0 to 1, or take data.normalise.by = 'data'",
            *(where, least, most, first.dtype),
        )


def from_arrays(arrays: Sequence[NDArray[Any]], *, name: str) -> DataSet:
    """Make samples of x and y, or of x_train, y_train, x_test and y_test; bytes become 0 to 1."""
    parts = []
    for x, y, where in zip(arrays[::2], arrays[1::2], (name, f"{name} (test)"), strict=False):
        scale = 1 / 255 if x.dtype == np.uint8 else 1.0
        _warn_of_pixels(x, where=where)
        parts.append(make_samples(x=x, y=np.asarray(y), where=where, scale=scale))
    return make_data_set(parts[0], parts[1] if len(parts) > 1 else None, name=name)
