"""Samples and their labels, in one form whatever file they came from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.datasets.classes import is_text, number_text, renumber, union
from runtime.datasets.stored import Drawn, Picked, Stored, usable, without_unusable
from runtime.errors import SettingsError
from runtime.seeding import Key
from runtime.target_shape import IGNORED
from runtime.wire.names import ClassNames, in_words

MOST_CLASSES = 100_000
"""Numbers beyond are ids, or counts of something, and nobody makes a table of so many classes."""

Shape = tuple[int, ...]
Indices = NDArray[np.int64]
Factor = float | NDArray[np.float32]

_BLOCK_BYTES = 2**24
"""Of a file that may be larger than memory, looked at together."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs and targets, [sample, ...].

    Images stay the bytes they were stored as: what is drawn is scaled when it is drawn, and
    nobody holds a data set as floats. Whoever needs a shard calls `take` and lets go of the rest.
    """

    stored: Stored
    """Inputs before scaling, [sample, *shape]: floats, the bytes of an image, or what is made or
    read when it is drawn."""
    y: NDArray[Any]
    """Class labels int64 [sample], or float32 targets [sample, ...]."""
    scale: Factor = 1.0
    offset: Factor = 0.0
    """`x` is `stored * scale + offset`; one number, or an array as wide as a sample's features."""
    class_names: ClassNames | None = None
    """What labels count along; None where they are numbers of their own."""
    feature_axis: int = 0
    """Of a sample, along which its features lie: channels, columns, axes of a sensor."""
    feature_names: tuple[str, ...] | None = None
    """In their order, where the source has names for them, as columns."""

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def sample_shape(self) -> Shape:
        """The shape of one sample, without the sample axis."""
        return tuple(self.stored.shape[1:])

    @property
    def x(self) -> NDArray[np.float32]:
        """All inputs as float32 [sample, *shape], scaled anew at each use."""
        return self.x_of(slice(None))

    def x_of(self, chosen: Indices | slice, *, key: Key = ()) -> NDArray[np.float32]:
        """Inputs of these samples as float32 [sample, *shape], scaled.

        `key` is the address of what is random in them: augmentations of the user's own.
        """
        stored = self._drawn(chosen, key)
        if stored.dtype == np.float32 and np.all(self.scale == 1) and not np.any(self.offset):
            return stored
        scaled = stored.astype(np.float32)
        scaled *= np.asarray(self.scale, np.float32)
        scaled += np.asarray(self.offset, np.float32)
        return scaled

    def usable(
        self, chosen: Indices, *, among: Indices, key: Key = ()
    ) -> tuple[NDArray[np.float32], Indices]:
        """Inputs of as many samples, and which they are.

        For one that cannot be used stands in what follows it `among` those that may be drawn.
        """
        return usable(partial(self.x_of, key=key), chosen, among)

    def without_unusable(self, chosen: slice) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Inputs and targets of those of these samples that can be used."""
        x, rows = without_unusable(self.x_of, np.arange(len(self))[chosen])
        return x, self.y[rows]

    def _drawn(self, chosen: Indices | slice, key: Key) -> NDArray[Any]:
        if not isinstance(self.stored, Drawn):
            return np.asarray(self.stored[chosen])
        rows = np.arange(len(self))[chosen] if isinstance(chosen, slice) else chosen
        return self.stored.draw(rows, key)

    def take(self, indices: Indices | Sequence[int]) -> "Samples":
        """Copy the samples with these indices, in this order; what is not in memory stays out."""
        rows = np.asarray(indices, dtype=np.int64)
        is_array = isinstance(self.stored, np.ndarray) and not isinstance(self.stored, np.memmap)
        stored = self.stored[rows] if is_array else Picked(self.stored, rows)
        return replace(self, stored=stored, y=self.y[rows])

    def scaled(self, mean: NDArray[np.float32], deviation: NDArray[np.float32]) -> "Samples":
        """Take a mean from the inputs, and then divide them; arrays as wide as a sample's axes."""
        scale, offset = self.scale / deviation, (self.offset - mean) / deviation
        return replace(self, scale=scale, offset=offset)

    def in_classes(
        self, classes: ClassNames, *, where: str, numbers_count: bool = False
    ) -> "Samples":
        """Number the labels along `classes`; SettingsError, naming `where`, if they do not fit.

        Labels that are numbers fit where they are said to count along them.
        """
        if self.class_names is not None:
            y = renumber(self.y, self.class_names, classes, where=where)
            return replace(self, y=y, class_names=classes)
        if not numbers_count:
            raise SettingsError(
                f"{where} has numbers for labels, but the classes of the job have names: "
                f"{in_words(classes)}; give it the names as labels, or list them in the "
                "data.classes of the job, in the order of the numbers"
            )
        check_labels(self, num_classes=len(classes), where=where)
        return replace(self, class_names=classes)


@dataclass(frozen=True, eq=False)
class DataSet:
    """What a data source holds: samples to train on and, where it has them, samples to test on."""

    train: Samples
    test: Samples | None
    num_classes: int | None
    """How many have names, or one above the largest label; None for targets that are no classes."""
    name: str

    @property
    def sample_shape(self) -> Shape:
        """The shape of one sample, without the sample axis."""
        return self.train.sample_shape


def make_samples(
    *,
    x: Stored,
    y: NDArray[Any],
    where: str,
    scale: Factor = 1.0,
    offset: Factor = 0.0,
    class_names: ClassNames | None = None,
) -> Samples:
    """Check arrays that came from outside and bring them to the types of `Samples`.

    `where` names their source in the SettingsError for arrays that cannot be used. Bytes stay
    bytes; every other input becomes float32. Text labels are numbered by their names;
    `class_names` are those of labels that are numbered already.
    """
    _check_shapes(x, y, where=where)
    if is_text(y):
        y, class_names = number_text(y, where=where)
    if x.dtype.kind not in "fiub" or y.dtype.kind not in "fiub":
        raise SettingsError(
            f"{where} holds {x.dtype} and {y.dtype}; it needs numbers, and text "
            "or numbers for labels"
        )
    stored = _as_stored(x, where=where)
    samples = Samples(stored, _as_targets(y, where=where), scale, offset, class_names)
    if class_names is not None:
        check_labels(samples, num_classes=len(class_names), where=where)
    return samples


def _check_shapes(x: Stored, y: NDArray[Any], *, where: str) -> None:
    """SettingsError unless there is a label for each input, and one of them at least."""
    if len(x.shape) < 2 or y.ndim < 1:
        raise SettingsError(
            f"{where} has inputs of shape {x.shape} and labels of shape {y.shape}; "
            "the first axis of both counts the samples, and an input has one axis more at least"
        )
    if len(x) != len(y):
        raise SettingsError(f"{where} has {len(x)} inputs but {len(y)} labels; it needs as many")
    if len(x) == 0:
        raise SettingsError(f"{where} is empty; it needs one sample at least")
    if 0 in x.shape or 0 in y.shape:
        raise SettingsError(
            f"{where} has inputs of shape {tuple(x.shape)} and labels of shape {y.shape}; "
            "no axis can be empty"
        )


def _as_stored(x: Stored, *, where: str) -> Stored:
    """Bring an array to float32 or bytes; what is drawn later is brought to them when it is."""
    if not isinstance(x, np.ndarray):
        return x
    stored = x
    if x.dtype != np.uint8 and not isinstance(x, np.memmap):
        stored = _as_floats(x)
    if stored.dtype.kind != "f":
        return stored
    step = max(1, _BLOCK_BYTES * len(stored) // max(1, stored.nbytes))
    for start in range(0, len(stored), step):
        is_finite = np.isfinite(stored[start : start + step])
        if not is_finite.all():
            sample = start + int(np.unravel_index(np.argmin(is_finite), is_finite.shape)[0])
            raise SettingsError(
                f"{where} has inputs that are not finite numbers (NaN or infinity), the first in "
                f"sample {sample}"
            )
    return stored


def make_data_set(train: Samples, test: Samples | None, *, name: str) -> DataSet:
    """Bring both parts together; raises SettingsError when they do not match."""
    if test is not None and test.sample_shape != train.sample_shape:
        raise SettingsError(
            f"{name} has training samples of shape {train.sample_shape} "
            f"but test samples of shape {test.sample_shape}; they have to be alike"
        )
    train, test = _in_the_same_classes(train, test, name=name)
    labels = [part.y for part in (train, test) if part is not None]
    counted = all(part.dtype.kind == "i" and part.ndim == 1 for part in labels)
    num_classes = int(max(part.max() for part in labels)) + 1 if counted else None
    if train.class_names is not None:
        num_classes = len(train.class_names)
    return DataSet(train=train, test=test, num_classes=num_classes, name=name)


def _in_the_same_classes(
    train: Samples, test: Samples | None, *, name: str
) -> tuple[Samples, Samples | None]:
    """Number the labels of both parts alike."""
    if test is None or (train.class_names is None and test.class_names is None):
        return train, test
    if train.class_names is None or test.class_names is None:
        raise SettingsError(
            f"{name}: the labels of one part, training or test, have names and those of the other "
            "are numbers; they have to be alike"
        )
    classes = union([train.class_names, test.class_names])
    return train.in_classes(classes, where=name), test.in_classes(classes, where=name)


def check_labels(samples: Samples, *, num_classes: int, where: str) -> None:
    """Raise SettingsError when a label is none of the classes 0 to num_classes - 1."""
    if samples.y.dtype.kind != "i" or samples.y.ndim != 1:
        raise SettingsError(
            f"{where} has labels of type {samples.y.dtype} and shape {samples.y.shape}; with "
            f"{num_classes} classes the label of a sample is one whole number{_hint(samples.y)}"
        )
    wrong = np.flatnonzero((samples.y < 0) | (samples.y >= num_classes))
    if len(wrong):
        raise SettingsError(
            f"label {samples.y[wrong[0]]} of sample {wrong[0]} in {where} is out of range; "
            f"with {num_classes} classes labels run from 0 to {num_classes - 1}"
            f"{_hint(samples.y)}"
        )


def _hint(y: NDArray[Any]) -> str:
    """Say what to do about labels that only look like something else."""
    if y.dtype.kind == "f" and y.ndim == 1 and (y == np.rint(y)).all():
        return ": save them as integers"
    if y.ndim == 2 and np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all():
        return ": rows with one 1 become numbers of classes by y.argmax(axis=1)"
    if y.dtype.kind == "i" and y.ndim == 1 and y.max() >= MOST_CLASSES:
        return ": if they are ids, give them as text, and each becomes the name of a class"
    return ""


def _as_floats(values: NDArray[Any]) -> NDArray[np.float32]:
    """Bring values to float32; those beyond its range become infinity, which is refused."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def _as_targets(y: NDArray[Any], *, where: str) -> NDArray[Any]:
    if y.ndim == 2 and y.shape[1] == 1 and y.dtype.kind != "f":
        y = y[:, 0]
    if y.dtype.kind == "f":
        if not np.isfinite(y).all():
            raise SettingsError(f"{where} has targets that are not finite numbers")
        if not np.isfinite(floats := _as_floats(y)).all():
            raise SettingsError(f"{where} has targets beyond the range of 32-bit floats")
        return floats
    is_out = (y < 0) & (y != IGNORED) if y.ndim > 1 else y < 0
    if is_out.any():
        sample = np.unravel_index(np.argmax(is_out), y.shape)[0]
        raise SettingsError(
            f"label {y[sample].min()} of sample {sample} in {where} is out of range; "
            "labels count from 0, and targets that are no classes are floats"
        )
    if y.max() > np.iinfo(np.int64).max:
        sample = np.unravel_index(np.argmax(y), y.shape)[0]
        raise SettingsError(
            f"label {y.max()} of sample {sample} in {where} is out of range; labels lie below 2^63"
        )
    return y.astype(np.int64, copy=False)
