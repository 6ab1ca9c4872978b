"""MNIST and its kin: images and labels in IDX files, packed with gzip or not."""

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.datasets.samples import DataSet, Samples, make_data_set, make_samples
from runtime.errors import SettingsError

# The mean and the deviation of MNIST's pixels as fractions of 255. They are constants, so that
# a device with data of its own scales it as every other device does.
PIXEL_MEAN = 0.1307
PIXEL_DEVIATION = 0.3081

Bytes = NDArray[np.uint8]


def load_idx_folder(directory: Path, *, name: str) -> DataSet:
    """Read a folder of four IDX files (or two, without the test set) as 1 x rows x columns."""
    train = _load_part(directory, "train", name=name)
    if train is None:
        raise SettingsError(
            f"{name}: no train-images-idx3-ubyte and train-labels-idx1-ubyte (or .gz) "
            f"in {directory}"
        )
    return make_data_set(train, _load_part(directory, "t10k", name=name), name=name)


def read_idx(path: Path, *, num_axes: int) -> Bytes:
    """Read one IDX file of unsigned bytes; raises SettingsError naming the file and the fault."""
    content = _read_bytes(path)
    header_bytes = 4 + 4 * num_axes
    magic = bytes([0, 0, 8, num_axes])
    if len(content) < header_bytes or content[:4] != magic:
        raise SettingsError(
            f"{path} is no IDX file of unsigned bytes with {num_axes} axes: it starts with "
            f"{content[:4].hex() or 'nothing'}, not {magic.hex()}"
        )
    sizes = np.frombuffer(content, dtype=">u4", count=num_axes, offset=4)
    shape = tuple(int(size) for size in sizes)
    expected_bytes = header_bytes + int(np.prod(shape, dtype=object))
    if len(content) != expected_bytes:
        raise SettingsError(
            f"{path} is damaged: its header says {shape}, that is {expected_bytes} bytes, "
            f"but it has {len(content)}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header_bytes).reshape(shape)


def _load_part(directory: Path, part: str, *, name: str) -> Samples | None:
    images_path = _find(directory, f"{part}-images", "idx3-ubyte")
    labels_path = _find(directory, f"{part}-labels", "idx1-ubyte")
    if images_path is None and labels_path is None:
        return None
    if images_path is None or labels_path is None:
        missing = "images" if images_path is None else "labels"
        raise SettingsError(f"{name}: no {part}-{missing} file in {directory}")
    return make_samples(
        x=read_idx(images_path, num_axes=3)[:, np.newaxis],
        y=read_idx(labels_path, num_axes=1),
        where=f"{name} ({part})",
        scale=1 / (255 * PIXEL_DEVIATION),
        offset=-PIXEL_MEAN / PIXEL_DEVIATION,
    )


def _find(directory: Path, stem: str, kind: str) -> Path | None:
    """Find the file under either of its usual spellings, unpacked first."""
    for ending in ("", ".gz"):
        for joint in ("-", "."):
            path = directory / f"{stem}{joint}{kind}{ending}"
            if path.is_file():
                return path
    return None


def _read_bytes(path: Path) -> bytes:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return file.read()
        return path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise SettingsError(f"cannot read {path}: {error}") from error
