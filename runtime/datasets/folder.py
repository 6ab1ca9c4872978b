"""A folder of images: one folder for each class, perhaps below `train/` and `test/`."""

from pathlib import Path
from types import ModuleType
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from runtime.datasets.samples import DataSet, Samples, make_data_set, make_samples
from runtime.distribution import install_hint
from runtime.errors import SettingsError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
MODES = {1: "L", 3: "RGB"}
# Bytes 0 to 255 become -1 to 1, whatever the images are, so that all devices scale alike.
PIXEL_SCALE = 2 / 255
PIXEL_OFFSET = -1.0


def load_image_folder(directory: Path, query: str, *, name: str) -> DataSet:
    """Read a folder of images as channels x rows x columns, scaled to -1 .. 1.

    Classes are the folder names in alphabetical order. `query` is `size=32` (bring images to
    32 x 32), `channels=1` (grey; colour is the default), or both joined by `&`.
    """
    size, channels = _read_query(query, name=name)
    train_dir = directory / "train" if (directory / "train").is_dir() else directory
    classes = _subfolders(train_dir)
    if train_dir == directory:
        return make_data_set(
            _load_part(directory, classes, size=size, channels=channels), None, name=name
        )
    test_dir, test = directory / "test", None
    if test_dir.is_dir():
        _check_classes(test_dir, classes)
        test = _load_part(test_dir, classes, size=size, channels=channels)
    train = _load_part(train_dir, classes, size=size, channels=channels)
    return make_data_set(train, test, name=name)


def _load_part(directory: Path, classes: list[str], *, size: int | None, channels: int) -> Samples:
    paths, labels = [], []
    for label, class_name in enumerate(classes):
        found = sorted(
            path
            for path in (directory / class_name).glob("*")
            if path.suffix.lower() in SUFFIXES and path.is_file()
        )
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise SettingsError(
            f"{directory} has no images; it needs one folder for each class with images in it"
        )
    images = [_read_image(path, size=size, channels=channels) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            raise SettingsError(
                f"{path} is {_sides(image)} pixels, but {paths[0]} is {_sides(images[0])}; add "
                "?size=32 (or another size) to the folder's name to bring all to one size"
            )
    return make_samples(
        x=np.stack(images),
        y=np.array(labels),
        where=str(directory),
        scale=PIXEL_SCALE,
        offset=PIXEL_OFFSET,
    )


def _read_image(path: Path, *, size: int | None, channels: int) -> NDArray[np.uint8]:
    """One image as bytes [channel, row, column]."""
    pillow = _import_pillow()
    try:
        with pillow.open(path) as file:
            image = file.convert(MODES[channels])
            if size is not None:
                image = image.resize((size, size), pillow.Resampling.BILINEAR)
            pixels = np.asarray(image, dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
        raise SettingsError(f"cannot read the image {path}: {error}") from error
    return np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1))


def _read_query(query: str, *, name: str) -> tuple[int | None, int]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for option, value in options.items():
        if option not in ("size", "channels"):
            raise SettingsError(f"{name}: no option {option!r}; a folder takes size and channels")
        if not value.isdecimal() or int(value) < 1:
            raise SettingsError(f"{name}: {option} is {value!r}; it has to be a number above 0")
    channels = int(options.get("channels", "3"))
    if channels not in MODES:
        raise SettingsError(f"{name}: channels is {channels}; it has to be 1 (grey) or 3 (colour)")
    return (int(options["size"]) if "size" in options else None), channels


def _subfolders(directory: Path) -> list[str]:
    return sorted(
        path.name for path in directory.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _check_classes(test_dir: Path, classes: list[str]) -> None:
    for class_name in _subfolders(test_dir):
        if class_name not in classes:
            raise SettingsError(
                f"{test_dir / class_name} is a class without training images; "
                f"the classes are {', '.join(classes)}"
            )


def _sides(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]} x {image.shape[2]}"


def _import_pillow() -> ModuleType:
    try:
        from PIL import Image  # noqa: PLC0415 - only this source needs it
    except ImportError as error:
        raise SettingsError(f"image folders need pillow: {install_hint('images')}") from error
    return Image
