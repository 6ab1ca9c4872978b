"""From the name of a data source to its samples."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from runtime.addresses import own_path
from runtime.datasets import audio, series, tables
from runtime.datasets.arrays import from_arrays, load_npy_folder, load_npz
from runtime.datasets.digits import load_digits
from runtime.datasets.folder import load_image_folder
from runtime.datasets.idx import load_idx_folder
from runtime.datasets.items import as_array, load_items, parts_of
from runtime.datasets.options import part_source, with_test_part
from runtime.datasets.samples import DataSet, Samples, make_data_set, make_samples
from runtime.errors import SettingsError
from runtime.offered import FILE_SOURCES, KNOWN_SOURCES
from runtime.plugins import call_factory, import_factory

_IS_FOLDER = {"mnist": True, "npz": False, "npy": True, "folder": True, "audio": True}
"""Whether a source is a folder or a file; the others may be either."""
_ARRAYS = {"mnist": load_idx_folder, "npz": load_npz, "npy": load_npy_folder}
_OPTIONS_OF_ARRAYS = {"mnist": (), "npz": ("test",), "npy": ("test",)}


def load_source(reference: str, *, base_dir: Path) -> DataSet:
    """Load a data set by its reference; relative paths start at `base_dir`.

    `digits` (scikit-learn's, 1 x 28 x 28), `mnist:DIR` (IDX files), `npz:FILE` (arrays x and y,
    or x_train, y_train, x_test and y_test, as they are; bytes are pixels and become 0 to 1),
    `npy:DIR` (the same as x.npy and so on, read where they are drawn),
    `folder:DIR?size=32` (images), `audio:DIR?seconds=1` (recordings),
    `csv:FILE?target=COLUMN` and `parquet:` (tables),
    `windows:FILE?target=COLUMN` (of series of readings), or `package.module:factory`, a function
    without arguments that returns a data set or the two or four arrays of an npz file. Raises
    SettingsError for whatever cannot be used.
    """
    scheme, colon, rest = reference.partition(":")
    if reference == "digits":
        return load_digits()
    if not colon or not rest:
        raise SettingsError(f"no data source {reference!r}; there are {KNOWN_SOURCES}")
    if scheme in FILE_SOURCES:
        path, question, query = rest.partition("?")
        found = _existing(path, base_dir, folder=_IS_FOLDER.get(scheme))
        return _load_files(scheme, found, f"{path}{question}{query}", name=reference)
    return _load_from_factory(reference, base_dir)


def _load_files(scheme: str, path: Path, rest: str, *, name: str) -> DataSet:
    if scheme in _ARRAYS:
        _, options = part_source(rest, scheme=scheme, known=_OPTIONS_OF_ARRAYS[scheme])
        return with_test_part(_ARRAYS[scheme](path, name=name), options)
    match scheme:
        case "folder":
            return load_image_folder(path, rest.partition("?")[2], name=name)
        case "audio":
            _, options = part_source(rest, scheme=scheme, known=audio.OPTIONS)
            return audio.load_audio_folder(path, options)
        case "windows":
            _, options = part_source(rest, scheme=scheme, known=series.OPTIONS)
            return series.load_windows(
                tables.table_files(path, suffixes=series.SUFFIXES), options=options
            )
        case _:
            _, options = part_source(rest, scheme=scheme, known=tables.OPTIONS)
            files = tables.table_files(path, suffixes=[f".{scheme}"])
            return tables.load_table(files, scheme=scheme, options=options)


def _existing(text: str, base_dir: Path, *, folder: bool | None) -> Path:
    """Find what a source names: a folder, a file, or either."""
    try:
        path = own_path(text, base_dir=base_dir)
        path.stat()
    except FileNotFoundError as error:
        raise SettingsError(f"the data path {error.filename} does not exist") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise SettingsError(f"the data path {text[:200]!r} cannot be read: {error}") from error
    if folder is None:
        return path
    if folder and not path.is_dir():
        raise SettingsError(f"the data path {path} is a file; it has to be a folder")
    if not folder and path.is_dir():
        raise SettingsError(f"the data path {path} is a folder; it has to be a file")
    return path


def _load_from_factory(reference: str, base_dir: Path) -> DataSet:
    made = call_factory(import_factory(reference, base_dir=base_dir), {}, name=reference)
    if isinstance(made, DataSet):
        train = _checked(made.train, where=reference)
        test = None if made.test is None else _checked(made.test, where=f"{reference} (test)")
        return make_data_set(train, test, name=reference)
    if parts := parts_of(made):
        return load_items(parts, name=reference)
    if isinstance(made, tuple) and len(made) in (2, 4):
        return from_arrays([_array(part, reference) for part in made], name=reference)
    raise SettingsError(
        f"{reference} returned a {_name_of(made)}; it has to be a data set (of torch or "
        "Hugging Face, or two: to train and to test on), or a tuple of arrays (x, y) or (x_train, "
        "y_train, x_test, y_test)"
    )


def _name_of(made: object) -> str:
    if isinstance(made, tuple):
        return f"tuple of {len(made)}"
    if type(made).__name__ == "DataFrame":
        return "DataFrame (take numbers out of it by to_numpy(), or name its file by csv:)"
    return type(made).__name__


def _array(part: object, reference: str) -> NDArray[Any]:
    try:
        return as_array(part)
    except Exception as error:  # It is the user's own, of any library.
        reason = str(error).partition("\n")[0]
        raise SettingsError(
            f"{reference} returned what is no array of numbers: {reason}"
        ) from error


def _checked(samples: Samples, *, where: str) -> Samples:
    checked = make_samples(
        x=samples.stored,
        y=samples.y,
        where=where,
        scale=samples.scale,
        offset=samples.offset,
        class_names=samples.class_names,
    )
    axis, names = samples.feature_axis, samples.feature_names
    return replace(checked, feature_axis=axis, feature_names=names)
