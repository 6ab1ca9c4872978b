"""Features brought to mean 0 and deviation 1, by figures that are the same on all devices."""

import numpy as np

from runtime.datasets.samples import Samples, Shape
from runtime.errors import SettingsError
from runtime.wire.commands import Normalisation

_BLOCK = 1000
"""Samples looked at together: there may be more than memory holds."""


def measure_features(samples: Samples) -> Normalisation:
    """Mean and deviation of each feature over all samples; one that never varies has 1."""
    axis = samples.feature_axis % len(samples.sample_shape)
    others = (0, *(each + 1 for each in range(len(samples.sample_shape)) if each != axis))
    count, total, square = 0, np.zeros(()), np.zeros(())
    for start in range(0, len(samples), _BLOCK):
        some, _ = samples.without_unusable(slice(start, start + _BLOCK))
        x = some.astype(np.float64)
        count += x.size // x.shape[axis + 1]
        total = total + x.sum(axis=others)
        square = square + np.square(x).sum(axis=others)
    mean = total / count
    deviation = np.sqrt(np.maximum(square / count - mean**2, 0))
    deviation[deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-6)] = 1
    as_sent = [tuple(np.float32(value).item() for value in each) for each in (mean, deviation)]
    return Normalisation(mean=as_sent[0], deviation=as_sent[1], axis=axis)


def factors(by: Normalisation, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Give what to subtract from a sample of this shape, and what to divide it by."""
    wide = [1] * len(shape)
    wide[by.axis] = len(by.mean)
    arrays = [np.asarray(each, np.float32).reshape(wide) for each in (by.mean, by.deviation)]
    return arrays[0], arrays[1]


def normalised(samples: Samples, by: Normalisation | None, *, where: str) -> Samples:
    """Bring the features of samples to this; SettingsError, naming `where`, if it is of others."""
    if by is None:
        return samples
    shape = samples.sample_shape
    if by.axis >= len(shape) or shape[by.axis] != len(by.mean):
        raise SettingsError(
            f"{where} has samples of shape {shape}; data.normalise of the job is of {len(by.mean)} "
            f"features along axis {by.axis}"
        )
    return samples.scaled(*factors(by, shape))
