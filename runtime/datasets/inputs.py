"""Samples without labels, which a trained model is to say something of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.addresses import own_path
from runtime.datasets.folder import (
    PIXEL_OFFSET,
    PIXEL_SCALE,
    SUFFIXES,
    image_options,
    read_images,
)
from runtime.datasets.images import MODES, import_pillow
from runtime.datasets.options import part_source
from runtime.datasets.samples import DataSet, Samples, Shape, make_samples
from runtime.datasets.sources import load_source
from runtime.datasets.tables import (
    as_numbers,
    check_numbers,
    columns_of,
    read_frame,
    without_missing,
)
from runtime.errors import SettingsError
from runtime.offered import KNOWN_INPUTS
from runtime.wire.names import in_words

_SCHEME = "inputs"
_TABLES = (".csv", ".parquet")
_ROW = " row"


@dataclass(frozen=True, eq=False)
class Asked:
    """Samples to be predicted; their labels count where they have some."""

    samples: Samples
    has_labels: bool
    names: tuple[str, ...] = ()
    """Of their files, where each is one."""


def load_asked(
    reference: str,
    *,
    part: str | None,
    base_dir: Path,
    features: Sequence[str] = (),
    shape: Shape | None = None,
) -> Asked:
    """Load a data source of a job, or samples without labels.

    `part` is `train` or `test`; None: what is there to test by, or else all. `features` are the
    columns that the model takes, in their order, if it knows them: so a table may have more.
    `shape` is that of the samples that it takes: images in a folder are brought to it.
    """
    asked = _load_asked(reference, part=part, base_dir=base_dir, features=features, shape=shape)
    samples = _with_columns(asked.samples, features, where=reference)
    return replace(asked, samples=samples)


def _with_columns(samples: Samples, features: Sequence[str], *, where: str) -> Samples:
    """Bring named columns to the model's; SettingsError where one is not there."""
    names, wanted = samples.feature_names, tuple(features)
    if not names or not wanted or names == wanted:
        return samples
    missing = [name for name in wanted if name not in names]
    if missing or not isinstance(samples.stored, np.ndarray):
        raise SettingsError(
            f"the model takes the columns {in_words(wanted)}, and {where} has {in_words(names)}"
        )
    places = [names.index(name) for name in wanted]
    return replace(samples, stored=samples.stored[:, places], feature_names=wanted)


def _load_asked(
    reference: str,
    *,
    part: str | None,
    base_dir: Path,
    features: Sequence[str],
    shape: Shape | None,
) -> Asked:
    scheme, _, rest = reference.partition(":")
    if scheme != _SCHEME:
        return Asked(_part(load_source(reference, base_dir=base_dir), part), has_labels=True)
    if part is not None:
        raise SettingsError(f"{reference} has no parts to choose from; leave --part out")
    text, question, query = rest.partition("?")
    path = own_path(text, base_dir=base_dir)
    if not path.exists():
        raise SettingsError(f"the data path {path} does not exist")
    if path.suffix.lower() == ".npy":
        return _unlabelled(_array(path), where=reference, scale=None)
    if path.suffix.lower() in _TABLES:
        return _table(path, f"{text}{question}{query}", features, where=reference)
    return _images(path, _of_shape(query, shape), name=reference)


def _part(data: DataSet, part: str | None) -> Samples:
    if part == "test" and data.test is None:
        raise SettingsError(f"{data.name} has no test set; take --part train")
    return data.train if part == "train" or data.test is None else data.test


def _unlabelled(
    x: NDArray[Any], *, where: str, scale: float | None, names: tuple[str, ...] = ()
) -> Asked:
    """Bytes become 0 to 1 as those of an npz file do, unless they are pixels of images."""
    of_bytes = 1 / 255 if x.dtype == np.uint8 else 1.0
    samples = make_samples(
        x=x,
        y=np.zeros(len(x), np.int64),
        where=where,
        scale=of_bytes if scale is None else scale,
        offset=0.0 if scale is None else PIXEL_OFFSET,
    )
    return Asked(samples, has_labels=False, names=names)


def _array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SettingsError(f"cannot read {path} as an array: {error}") from error
    return array


def _table(path: Path, rest: str, wanted: Sequence[str], *, where: str) -> Asked:
    scheme = path.suffix.lower().removeprefix(".")
    known = ("features", "drop", "missing", "separator", "decimal")
    _, options = part_source(rest, scheme=scheme, known=known)
    frame = read_frame([path], scheme=scheme, options=options)
    dropped = columns_of(frame, "drop", options)
    features = columns_of(frame, "features", options)
    if missing := [name for name in wanted if name not in frame.columns and not features]:
        raise SettingsError(
            f"{where} has no column {missing[0]!r}, which the model takes; it takes "
            f"{in_words(wanted)}"
        )
    others = sorted(name for name in frame.columns if name not in dropped)
    features = features or list(wanted) or others
    check_numbers(frame.select(*features), options)
    kept = without_missing(frame.select(*features).with_row_index(_ROW, 1), options)
    rows = kept[_ROW].to_list()
    names = tuple(f"row {row}" for row in rows) if len(rows) < len(frame) else ()
    asked = _unlabelled(as_numbers(kept.select(*features)), where=where, scale=None, names=names)
    return replace(asked, samples=replace(asked.samples, feature_names=tuple(features)))


def _of_shape(query: str, shape: Shape | None) -> str:
    """Add the size and the channels of the images that a model takes, where none are given."""
    if shape is None or len(shape) != 3 or shape[0] not in MODES or shape[1] != shape[2]:
        return query
    parts = [part for part in query.split("&") if part]
    given = {part.partition("=")[0] for part in parts}
    wanted = {"size": shape[1], "channels": shape[0]}
    parts += [f"{name}={value}" for name, value in wanted.items() if name not in given]
    return "&".join(parts)


def _images(path: Path, query: str, *, name: str) -> Asked:
    size, channels, _ = image_options(query, name=name)
    import_pillow()
    files = [path] if path.is_file() else sorted(path.iterdir())
    files = [each for each in files if each.suffix.lower() in SUFFIXES and each.is_file()]
    read = read_images(files, size=size, channels=channels) if files else {}
    if not read:
        raise SettingsError(
            f"{path} holds no image that can be read, and no array; give {KNOWN_INPUTS}"
        )
    shapes = {image.shape: file for file, image in read.items()}
    if len(shapes) > 1:
        one, other = list(shapes.values())[:2]
        raise SettingsError(
            f"{one} and {other} differ in size; add ?size=32 (or another size) to bring all to one"
        )
    names = tuple(file.name for file in read)
    return _unlabelled(np.stack(list(read.values())), where=name, scale=PIXEL_SCALE, names=names)
