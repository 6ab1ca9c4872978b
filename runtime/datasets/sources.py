"""From the name of a data source to its samples."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from runtime.datasets.digits import load_digits
from runtime.datasets.folder import load_image_folder
from runtime.datasets.idx import load_idx_folder
from runtime.datasets.options import part_source
from runtime.datasets.samples import DataSet, Samples, make_data_set, make_samples
from runtime.datasets.tables import OPTIONS, load_table, table_files
from runtime.errors import SettingsError
from runtime.offered import KNOWN_SOURCES
from runtime.plugins import call_factory, import_factory


def load_source(reference: str, *, base_dir: Path) -> DataSet:
    """Load a data set by its reference; relative paths start at `base_dir`.

    `digits` (scikit-learn's, 1 x 28 x 28), `mnist:DIR` (IDX files), `npz:FILE` (arrays x and y,
    or x_train, y_train, x_test and y_test, as they are; bytes are pixels and become 0 to 1),
    `folder:DIR?size=32` (images), `csv:FILE?target=COLUMN` and `parquet:` (tables), or
    `package.module:factory`, a function without arguments that returns a DataSet or the two or
    four arrays of an npz file. Raises SettingsError for whatever cannot be used.
    """
    scheme, colon, rest = reference.partition(":")
    if reference == "digits":
        return load_digits()
    if not colon or not rest:
        raise SettingsError(f"no data source {reference!r}; there are {KNOWN_SOURCES}")
    if scheme == "mnist":
        return load_idx_folder(_existing(rest, base_dir, folder=True), name=reference)
    if scheme == "npz":
        return _load_npz(_existing(rest, base_dir, folder=False), name=reference)
    if scheme == "folder":
        path, _, query = rest.partition("?")
        directory = _existing(path, base_dir, folder=True)
        return load_image_folder(directory, query, name=reference)
    if scheme in ("csv", "parquet"):
        path, options = part_source(rest, scheme=scheme, known=OPTIONS)
        files = table_files(_existing(path, base_dir), scheme=scheme)
        return load_table(files, scheme=scheme, options=options)
    return _load_from_factory(reference, base_dir)


def _existing(text: str, base_dir: Path, *, folder: bool | None = None) -> Path:
    """Find what a source names: a folder, a file, or either."""
    path = base_dir / Path(text).expanduser()
    if not path.exists():
        raise SettingsError(f"the data path {path} does not exist")
    if folder is None:
        return path
    if folder and not path.is_dir():
        raise SettingsError(f"the data path {path} is a file; it has to be a folder")
    if not folder and path.is_dir():
        raise SettingsError(f"the data path {path} is a folder; it has to be a file")
    return path


def _load_npz(path: Path, *, name: str) -> DataSet:
    try:
        # A .npy file would come back as an array, without keys.
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (
        OSError,
        ValueError,
        EOFError,
        AttributeError,
        TypeError,
        BadZipFile,
        zlib.error,
    ) as error:
        raise SettingsError(f"cannot read {path} as an npz file of arrays: {error}") from error
    for names in (("x_train", "y_train", "x_test", "y_test"), ("x_train", "y_train"), ("x", "y")):
        if all(key in arrays for key in names):
            return _from_arrays([arrays[key] for key in names], name=name)
    found = ", ".join(arrays) or "nothing"
    raise SettingsError(
        f"{path} holds {found}; it needs x and y, or x_train, y_train, x_test and y_test"
    )


def _load_from_factory(reference: str, base_dir: Path) -> DataSet:
    made = call_factory(import_factory(reference, base_dir=base_dir), {}, name=reference)
    if isinstance(made, DataSet):
        train = _checked(made.train, where=reference)
        test = None if made.test is None else _checked(made.test, where=f"{reference} (test)")
        return make_data_set(train, test, name=reference)
    if isinstance(made, tuple) and len(made) in (2, 4):
        return _from_arrays([np.asarray(part) for part in made], name=reference)
    raise SettingsError(
        f"{reference} returned a {type(made).__name__}; it has to be a DataSet, or a tuple of "
        "arrays (x, y) or (x_train, y_train, x_test, y_test)"
    )


def _from_arrays(arrays: Sequence[NDArray[Any]], *, name: str) -> DataSet:
    parts = []
    for x, y, where in zip(arrays[::2], arrays[1::2], (name, f"{name} (test)"), strict=False):
        scale = 1 / 255 if x.dtype == np.uint8 else 1.0
        parts.append(make_samples(x=x, y=y, where=where, scale=scale))
    return make_data_set(parts[0], parts[1] if len(parts) > 1 else None, name=name)


def _checked(samples: Samples, *, where: str) -> Samples:
    return make_samples(
        x=samples.stored,
        y=samples.y,
        where=where,
        scale=samples.scale,
        offset=samples.offset,
        class_names=samples.class_names,
    )
