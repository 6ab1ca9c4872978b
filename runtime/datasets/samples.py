"""Samples and their labels, in one form whatever file they came from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import SettingsError

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
        return Samples(self.stored[indices], self.y[indices], self.scale, self.offset)


@dataclass(frozen=True, eq=False)
class DataSet:
    """What a data source holds: samples to train on and, where it has them, samples to test on."""

    train: Samples
    test: Samples | None
    num_classes: int | None
    """One above the largest label; None for targets that are not class labels."""
    name: str

    @property
    def sample_shape(self) -> Shape:
        """The shape of one sample, without the sample axis."""
        return self.train.sample_shape


def make_samples(
    *, x: NDArray[Any], y: NDArray[Any], where: str, scale: float = 1.0, offset: float = 0.0
) -> Samples:
    """Check arrays that came from outside and bring them to the types of `Samples`.

    `where` names their source in the SettingsError for arrays that cannot be used. Bytes stay
    bytes; every other input becomes float32.
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
    if x.dtype.kind not in "fiub" or y.dtype.kind not in "fiub":
        raise SettingsError(f"{where} holds {x.dtype} and {y.dtype}; it needs numbers")
    stored = x if x.dtype == np.uint8 else x.astype(np.float32, copy=False)
    if stored.dtype == np.float32 and not np.isfinite(stored).all():
        raise SettingsError(f"{where} has inputs that are not finite numbers (NaN or infinity)")
    return Samples(stored, _as_targets(y, where=where), scale, offset)


def make_data_set(train: Samples, test: Samples | None, *, name: str) -> DataSet:
    """Bring both parts together; raises SettingsError when they do not match."""
    if test is not None and test.sample_shape != train.sample_shape:
        raise SettingsError(
            f"{name} has training samples of shape {train.sample_shape} "
            f"but test samples of shape {test.sample_shape}; they have to be alike"
        )
    labels = [part.y for part in (train, test) if part is not None]
    counted = all(part.dtype.kind == "i" and part.ndim == 1 for part in labels)
    num_classes = int(max(part.max() for part in labels)) + 1 if counted else None
    return DataSet(train=train, test=test, num_classes=num_classes, name=name)


def check_labels(samples: Samples, *, num_classes: int, where: str) -> None:
    """Raise SettingsError when a label is none of the classes 0 to num_classes - 1."""
    if samples.y.dtype.kind != "i" or samples.y.ndim != 1:
        raise SettingsError(
            f"{where} has labels of type {samples.y.dtype} and shape {samples.y.shape}; with "
            f"{num_classes} classes the label of a sample is one whole number"
        )
    wrong = np.flatnonzero((samples.y < 0) | (samples.y >= num_classes))
    if len(wrong):
        raise SettingsError(
            f"label {samples.y[wrong[0]]} of sample {wrong[0]} in {where} is out of range; "
            f"with {num_classes} classes labels run from 0 to {num_classes - 1}"
        )


def _as_targets(y: NDArray[Any], *, where: str) -> NDArray[Any]:
    if y.ndim == 2 and y.shape[1] == 1 and y.dtype.kind != "f":
        y = y[:, 0]
    if y.dtype.kind == "f":
        if not np.isfinite(y).all():
            raise SettingsError(f"{where} has targets that are not finite numbers")
        return y.astype(np.float32, copy=False)
    if y.min() < 0:
        raise SettingsError(
            f"label {y.min()} of sample {np.argmin(y)} in {where} is out of range; "
            "labels count from 0"
        )
    return y.astype(np.int64, copy=False)
