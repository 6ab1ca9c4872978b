"""Data sets of the user's own: torch's `Dataset` and `IterableDataset`, Hugging Face's `datasets`.

What has a length and gives an item by its index stays as it is: inputs are read when a mini-batch
is drawn, through the data set's own transforms, and only the labels are read before. What can only
be gone through is read once, into memory. Neither library is imported here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.datasets.images import image_as_bytes
from runtime.datasets.samples import DataSet, Samples, make_data_set, make_samples
from runtime.datasets.stored import Items, Picked, Stored, Unusable, said, seeded
from runtime.errors import SettingsError
from runtime.wire.names import as_class_name

LABEL_KEYS = ("label", "labels", "target", "targets", "y", "class", "fine_label")
"""Under which an item that is a dictionary may have what is to be learnt."""
PIXEL_SCALE = 1 / 255


def is_data_set(made: object) -> bool:
    """Whether this gives items, and is no array, list or dictionary of them."""
    if isinstance(made, np.ndarray | list | tuple | str | bytes | dict) or hasattr(made, "dtype"):
        return False
    if type(made).__name__ == "DataFrame":  # Its items are columns.
        return False
    return hasattr(made, "__getitem__") or hasattr(made, "__iter__")


def parts_of(made: object) -> list[object]:
    """Give the data sets to train and to test on that a factory returned; empty if it did not."""
    if isinstance(made, Mapping) and "train" in made:
        made = [made["train"], *(made[key] for key in ("test", "validation") if key in made)][:2]
    parts = list(made) if isinstance(made, tuple | list) else [made]
    return parts if 1 <= len(parts) <= 2 and all(map(is_data_set, parts)) else []


def load_items(parts: list[Any], *, name: str) -> DataSet:
    """Make samples of one data set, or of two: to train, and to test on."""
    samples = [
        _samples(part, where=where)
        for part, where in zip(parts, (name, f"{name} (test)"), strict=False)
    ]
    return make_data_set(samples[0], samples[1] if len(samples) > 1 else None, name=name)


def _samples(dataset: Any, *, where: str) -> Samples:  # noqa: ANN401 - any library's
    if type(dataset).__name__ == "DataLoader":
        raise SettingsError(f"{where} is a DataLoader; give its dataset, batches are drawn here")
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        return _gone_through(dataset, where=where)
    if not _length(dataset, where=where):
        raise SettingsError(f"{where} is empty; it needs one sample at least")

    def read(index: int) -> NDArray[Any]:
        return _input(_item(dataset, index, where=where), where=where)

    unusable = Unusable()
    index, (first, label) = next(_usable_pairs(dataset, unusable, where=where), (0, (None, None)))
    if first is None:
        raise SettingsError(f"{where} has no sample that can be used; the log names the first")
    shown = as_input(first, where=where)
    y, rows = _known_labels(dataset, index, label), np.arange(len(dataset))
    if y is None:
        y, rows = _read_labels(dataset, unusable, where=where)
    dtype = np.dtype(np.uint8 if shown.dtype == np.uint8 else np.float32)
    stored: Stored = Items(read, (len(dataset), *shown.shape), dtype, unusable)
    stored = stored if len(rows) == len(dataset) else Picked(stored, rows)
    scale = PIXEL_SCALE if dtype == np.uint8 else 1.0
    names = _class_names(dataset, y, where=where)
    return make_samples(x=stored, y=y, where=where, scale=scale, class_names=names)


def _length(dataset: Any, *, where: str) -> int:  # noqa: ANN401 - any library's
    try:
        return len(dataset)
    except Exception as error:  # It is the user's own.
        raise SettingsError(f"{where} has no length: {_reason(error)}") from error


def _gone_through(dataset: Iterable[object], *, where: str) -> Samples:
    pairs = list[tuple[object, object]]()
    try:
        with seeded((0,)):
            pairs.extend(_pair(item, where=where) for item in said(dataset, where=where))
    except SettingsError:
        raise
    except Exception as error:  # It is the user's own.
        raise SettingsError(
            f"sample {len(pairs)} of {where} cannot be read: {_reason(error)}"
        ) from error
    if not pairs:
        raise SettingsError(f"{where} is empty; it needs one sample at least")
    x = _stacked([as_input(x, where=where) for x, _ in pairs], where=where)
    y = _stacked([as_array(label) for _, label in pairs], where=f"the targets of {where}")
    scale = PIXEL_SCALE if x.dtype == np.uint8 else 1.0
    names = _class_names(dataset, y, where=where)
    return make_samples(x=x, y=y, where=where, scale=scale, class_names=names)


def _item(dataset: Any, index: int, *, where: str) -> object:  # noqa: ANN401 - any library's
    try:
        item: object = dataset[index]
    except Exception as error:  # It is the user's own, and so are its transforms.
        raise SettingsError(
            f"sample {index} of {where} cannot be read: {_reason(error)}"
        ) from error
    return item


def _input(item: object, *, where: str) -> NDArray[Any]:
    return as_input(_pair(item, where=where)[0], where=where)


def _pair(item: object, *, where: str) -> tuple[object, object]:
    """Part an item into its input and its target."""
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    if isinstance(item, Mapping):
        labels = [key for key in LABEL_KEYS if key in item]
        inputs = [key for key in item if key not in labels]
        if labels and inputs:
            several = {str(key): item[key] for key in inputs}
            return item[inputs[0]] if len(inputs) == 1 else several, item[labels[0]]
        raise SettingsError(
            f"an item of {where} has the keys {', '.join(map(str, item))}; it needs an input and "
            f"one of {', '.join(LABEL_KEYS[:4])}: select these columns, or give pairs"
        )
    raise SettingsError(
        f"an item of {where} is a {type(item).__name__}; it has to be a pair of input and target"
    )


def as_input(value: object, *, where: str) -> NDArray[Any]:
    """Bring a tensor, an image or numbers to an array; an image to bytes [channel, row, column].

    A dictionary of several, as tokenised text is, becomes a row: flat, in the order of their names.
    """
    if isinstance(value, Mapping):
        parts = {key: as_input(value[key], where=f"{key} of {where}") for key in sorted(value)}
        return np.concatenate([part.astype(np.float32).ravel() for part in parts.values()])
    try:
        array = image_as_bytes(value) if hasattr(value, "getbands") else as_array(value)
    except Exception as error:  # They may be of any library.
        raise SettingsError(f"{where} has inputs that are no array: {_reason(error)}") from error
    if array.dtype.kind not in "fiub":
        raise SettingsError(f"{where} has inputs of type {array.dtype}; they have to be numbers")
    return array


def as_array(value: object) -> NDArray[Any]:
    """Bring a tensor, a mask or numbers to an array."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    tensor = value.detach().cpu()
    return np.asarray((tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).numpy())


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _known_labels(dataset: Any, index: int, label: object) -> NDArray[Any] | None:  # noqa: ANN401
    """Labels that a data set has as a whole, where they are those that its items have."""
    candidates = [_of_whole(dataset, name) for name in ("targets", "labels")]
    columns = getattr(dataset, "column_names", None)
    if isinstance(columns, list):
        candidates = [_column(dataset, key) for key in LABEL_KEYS if key in columns][:1]
    for labels in candidates:
        if labels is not None and hasattr(labels, "__len__") and len(labels) == len(dataset):
            y = as_array(labels if hasattr(labels, "dtype") else list(labels))
            if y.ndim and y.dtype != object and np.array_equal(y[index], as_array(label)):
                return y
    return None


def _of_whole(dataset: Any, name: str) -> Any:  # noqa: ANN401
    """A list of the data set's own, or, of a part as torch's `Subset` is, of the whole's."""
    found = getattr(dataset, name, None)
    whole, indices = getattr(dataset, "dataset", None), getattr(dataset, "indices", None)
    if found is not None or whole is None or indices is None:
        return found
    of_whole = _of_whole(whole, name)
    if name == "classes" or not hasattr(of_whole, "__len__") or len(of_whole) != len(whole):
        return of_whole
    return [of_whole[index] for index in indices]


def _column(dataset: Any, key: str) -> Any:  # noqa: ANN401
    """Give a column as a whole, as Hugging Face's data sets do; None where others do not."""
    try:
        return dataset[key]
    except Exception:  # It is of any library.
        return None


def _usable_pairs(
    dataset: Any,  # noqa: ANN401
    unusable: Unusable,
    *,
    where: str,
) -> Iterator[tuple[int, tuple[object, object]]]:
    """Go through the items that can be read, each with its number."""
    for index in said(range(len(dataset)), where=where):
        unusable.note(index)
        try:
            with seeded((index,)):
                item = _item(dataset, index, where=where)
        except SettingsError as error:
            unusable.leave_out(index, str(error))
            continue
        yield index, _pair(item, where=where)


def _read_labels(
    dataset: Any,  # noqa: ANN401
    unusable: Unusable,
    *,
    where: str,
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Targets of the items that can be read, and their numbers."""
    pairs = _usable_pairs(dataset, unusable, where=where)
    labels = {index: as_array(label) for index, (_, label) in pairs}
    y = _stacked(list(labels.values()), where=f"the targets of {where}")
    return y, np.array(list(labels), np.int64)


def _stacked(arrays: Sequence[NDArray[Any]], *, where: str) -> NDArray[Any]:
    for index, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise SettingsError(
                f"sample {index} of {where} has the shape {array.shape}, sample 0 has "
                f"{arrays[0].shape}; bring all to one, as by a transform"
            )
    return np.stack(arrays)


def _class_names(dataset: Any, y: NDArray[Any], *, where: str) -> tuple[str, ...] | None:  # noqa: ANN401
    """Names that the data set itself gives its numbered classes."""
    names = _of_whole(dataset, "classes")
    features = getattr(dataset, "features", None)
    if isinstance(features, Mapping):
        names = next(
            (getattr(features[key], "names", None) for key in LABEL_KEYS if key in features), None
        )
    is_numbered = y.ndim == 1 and y.dtype.kind in "iu"
    if not (is_numbered and isinstance(names, list | tuple) and len(names) > y.max()):
        return None
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        return None
    return tuple(as_class_name(name, where=f"a class of {where}") for name in names)
