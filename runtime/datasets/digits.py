"""Scikit-learn's handwritten digits: 1,797 small images that need no download."""

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.datasets.samples import DataSet, Indices, Samples, make_data_set
from runtime.distribution import install_hint
from runtime.errors import SettingsError

SIDE = 28
BRIGHTEST = 16.0
# Mean and deviation of the interpolated pixels as fractions of the brightest one.
PIXEL_MEAN = 0.305
PIXEL_DEVIATION = 0.325
ONE_TEST_SAMPLE_IN = 5


def load_digits() -> DataSet:
    """Load the digits as 1 x 28 x 28; every fifth of each class is for testing.

    The split is the same for every seed, so that accuracies of two runs can be compared.
    """
    table = np.loadtxt(_find_table(), delimiter=",", dtype=np.float32)
    labels = table[:, -1].astype(np.int64)
    images = enlarge(table[:, :-1].reshape(-1, 8, 8) / BRIGHTEST, side=SIDE)
    inputs = ((images - PIXEL_MEAN) / PIXEL_DEVIATION).astype(np.float32)[:, np.newaxis]
    train, test = _every_fifth_of_each_class(labels)
    return make_data_set(
        Samples(inputs[train], labels[train]), Samples(inputs[test], labels[test]), name="digits"
    )


def enlarge(images: NDArray[np.float32], *, side: int) -> NDArray[np.float32]:
    """Bring square images [sample, row, column] to another side by linear interpolation."""
    old_side = images.shape[-1]
    # Pixel centres lie at halves; outside the outermost centres the border is repeated.
    centres = np.clip((np.arange(side) + 0.5) * old_side / side - 0.5, 0, old_side - 1)
    weights = 1 - np.abs(centres[:, np.newaxis] - np.arange(old_side))
    matrix = np.clip(weights, 0, None).astype(np.float32)
    enlarged: NDArray[np.float32] = matrix @ images @ matrix.T
    return enlarged


def _every_fifth_of_each_class(labels: Indices) -> tuple[Indices, Indices]:
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        is_test[members[ONE_TEST_SAMPLE_IN - 1 :: ONE_TEST_SAMPLE_IN]] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def _find_table() -> Path:
    """Find the table that scikit-learn ships; importing scikit-learn itself takes seconds."""
    spec = importlib.util.find_spec("sklearn")
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise SettingsError(f"the data source 'digits' needs scikit-learn: {install_hint('digits')}")
