"""Samples and their labels, in one form whatever file they came from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.datasets.classes import is_text, number_text, renumber, union
from runtime.errors import SettingsError
from runtime.wire.class_names import ClassNames, in_words

MOST_CLASSES = 100_000
"""Numbers beyond are ids, or counts of something, and nobody makes a table of so many classes."""

Shape = tuple[int, ...]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs and targets, [sample, ...].

    Images stay the bytes they were stored as: what is drawn is scaled when it is drawn, and
    nobody holds a data set as floats. Whoever needs a shard calls `take` and lets go of the rest.
    """

    stored: NDArray[Any]
    """Inputs before scaling, [sample, *shape]: floats, or the bytes of an image."""
    y: NDArray[Any]
    """Class labels int64 [sample], or float32 targets [sample, ...]."""
    scale: float = 1.0
    offset: float = 0.0
    """`x` is `stored * scale + offset`."""
    class_names: ClassNames | None = None
    """What labels count along; None where they are numbers of their own."""

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

    def x_of(self, chosen: Indices | slice) -> NDArray[np.float32]:
        """Inputs of these samples as float32 [sample, *shape], scaled."""
        stored = self.stored[chosen]
        if stored.dtype == np.float32 and self.scale == 1 and self.offset == 0:
            return stored
        scaled = stored.astype(np.float32)
        scaled *= np.float32(self.scale)
        scaled += np.float32(self.offset)
        return scaled

    def take(self, indices: Indices | Sequence[int]) -> "Samples":
        """Copy the samples with these indices, in this order."""
        return replace(self, stored=self.stored[indices], y=self.y[indices])

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
    x: NDArray[Any],
    y: NDArray[Any],
    where: str,
    scale: float = 1.0,
    offset: float = 0.0,
    class_names: ClassNames | None = None,
) -> Samples:
    """Check arrays that came from outside and bring them to the types of `Samples`.

    `where` names their source in the SettingsError for arrays that cannot be used. Bytes stay
    bytes; every other input becomes float32. Text labels are numbered by their names;
    `class_names` are those of labels that are numbered already.
    """
    if x.ndim < 2 or y.ndim < 1:
        raise SettingsError(
            f"{where} has inputs of shape {x.shape} and labels of shape {y.shape}; "
            "the first axis of both counts the samples, and an input has one axis more at least"
        )
    if len(x) != len(y):
        raise SettingsError(f"{where} has {len(x)} inputs but {len(y)} labels; it needs as many")
    if len(x) == 0:
        raise SettingsError(f"{where} is empty; it needs one sample at least")
    if is_text(y):
        y, class_names = number_text(y, where=where)
    if x.dtype.kind not in "fiub" or y.dtype.kind not in "fiub":
        raise SettingsError(
            f"{where} holds {x.dtype} and {y.dtype}; it needs numbers, and text "
            "or numbers for labels"
        )
    stored = x if x.dtype == np.uint8 else x.astype(np.float32, copy=False)
    if stored.dtype == np.float32 and not np.isfinite(stored).all():
        raise SettingsError(f"{where} has inputs that are not finite numbers (NaN or infinity)")
    samples = Samples(stored, _as_targets(y, where=where), scale, offset, class_names)
    if class_names is not None:
        check_labels(samples, num_classes=len(class_names), where=where)
    return samples


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
    if y.dtype.kind == "i" and y.ndim == 1 and y.max() >= MOST_CLASSES:
        return ": if they are ids, give them as text, and each becomes the name of a class"
    return ""


def _as_targets(y: NDArray[Any], *, where: str) -> NDArray[Any]:
    if y.ndim == 2 and y.shape[1] == 1 and y.dtype.kind != "f":
        y = y[:, 0]
    if y.dtype.kind == "f":
        if not np.isfinite(y).all():
            raise SettingsError(f"{where} has targets that are not finite numbers")
        return y.astype(np.float32, copy=False)
    if y.min() < 0:
        sample = np.unravel_index(np.argmin(y), y.shape)[0]
        raise SettingsError(
            f"label {y.min()} of sample {sample} in {where} is out of range; "
            "labels count from 0, and targets that are no classes are floats"
        )
    if y.max() > np.iinfo(np.int64).max:
        sample = np.unravel_index(np.argmax(y), y.shape)[0]
        raise SettingsError(
            f"label {y.max()} of sample {sample} in {where} is out of range; labels lie below 2^63"
        )
    return y.astype(np.int64, copy=False)
