"""A folder of images: one folder for each class, perhaps below `train/` and `test/`."""

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.datasets.images import MODES, UnreadableImageError, import_pillow, read_image
from runtime.datasets.options import (
    SourceOptions,
    options_in,
    whole_number,
    with_test_part,
)
from runtime.datasets.samples import DataSet, Samples, make_data_set, make_samples
from runtime.datasets.stored import said
from runtime.errors import SettingsError
from runtime.wire.names import as_class_name, in_words

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
NO_CLASSES = frozenset(
    {"lost+found", "system volume information", "__macosx", "__pycache__", "$recycle.bin"}
    | {"#recycle", "#snapshot", "@eadir", "@recycle", "@recently-snapshot"}
    | {"thumbs.db", "desktop.ini"}
)
"""What file systems, programs and network drives leave behind, in small letters."""
IMAGE_OPTIONS = ("size", "channels", "order")
FOLDER_OPTIONS = (*IMAGE_OPTIONS, "test")
"""What a folder takes after the `?`."""
# Bytes 0 to 255 become -1 to 1, whatever the images are, so that all devices scale alike.
PIXEL_SCALE = 2 / 255
PIXEL_OFFSET = -1.0

ClassFiles = Mapping[str, Sequence[Path]]
"""Name of a class to its files, both in alphabetical order."""
NUM_NAMED_FILES = 3
MOST_PIXELS = 10_000
"""Of a side that images are brought to."""


def load_image_folder(directory: Path, query: str, *, name: str) -> DataSet:
    """Read a folder of images as channels x rows x columns, scaled to -1 .. 1.

    Classes are the folders with an image in them, by their names. `query` is `size=32` (bring
    images to 32 x 32), `channels=1` (grey; colour is the default), `order=time` (the last written
    come last, for a folder that grows), `test=0.2` (a part to test on), joined by `&`. Files that
    cannot be read as images are left out, and said.
    """
    size, channels, by_time = image_options(query, name=name, known=FOLDER_OPTIONS)
    import_pillow()
    train_dir = directory / "train" if (directory / "train").is_dir() else directory
    train, test = find_classes(train_dir, SUFFIXES, what="image"), None
    test_dir = directory / "test"
    if train_dir != directory and test_dir.is_dir():
        files = find_classes(test_dir, SUFFIXES, what="image")
        _check_classes(test_dir, files, tuple(train))
        test = _load_part(test_dir, files, tuple(train), size=size, channels=channels)
    loaded = _load_part(
        train_dir, train, tuple(train), size=size, channels=channels, by_time=by_time
    )
    options = SourceOptions(options_in(query, source=name, takes="", known=FOLDER_OPTIONS), name)
    return with_test_part(make_data_set(loaded, test, name=name), options)


def find_classes(directory: Path, suffixes: Set[str], *, what: str) -> ClassFiles:
    """Find the files of every class that end so, and say which folders hold none."""
    found, others = dict[str, list[Path]](), Counter[str]()
    for folder in _entries(directory):
        if not folder.is_dir():
            continue
        files = [path for path in _entries(folder) if path.is_file()]
        images = [path for path in files if path.suffix.lower() in suffixes]
        if images:
            class_name = as_class_name(folder.name, where=f"the name of {str(folder)!a}")
            found.setdefault(class_name, []).extend(images)
            others.update(_ending(path) for path in files if path not in images)
        else:
            log.warning(
                "%s/%s is no class: %s",
                folder.parent,
                name_of(folder),
                _why_none(files, suffixes, what),
            )
    if others:
        counted = ", ".join(f"{count} {ending}" for ending, count in others.most_common(3))
        log.warning(
            "files of %s that are no %ss by their names are left out: %s; taken are %s",
            *(directory, what, counted, ", ".join(sorted(suffixes))),
        )
    if not found:
        raise SettingsError(
            f"{directory} has no {what}s; it needs one folder for each class with {what}s in it"
        )
    return dict(sorted(found.items()))


def _entries(directory: Path) -> list[Path]:
    """What is in a folder, in order, but for what nobody put there."""
    try:
        paths = sorted(directory.iterdir())
    except OSError as error:
        raise SettingsError(f"cannot read the folder {directory}: {error.strerror}") from error
    return [
        path
        for path in paths
        if not path.name.startswith(".") and path.name.lower() not in NO_CLASSES
    ]


def _why_none(files: Sequence[Path], suffixes: Set[str], what: str) -> str:
    endings = ", ".join(sorted({_ending(path) for path in files})[:3])
    taken = ", ".join(sorted(suffixes))
    return f"it has no {what} in it, only {endings}; taken are {taken}" if files else "it is empty"


def _ending(path: Path) -> str:
    return path.suffix.lower() or name_of(path)


def _load_part(
    directory: Path,
    files: ClassFiles,
    classes: tuple[str, ...],
    *,
    size: int | None,
    channels: int,
    by_time: bool = False,
) -> Samples:
    images, paths, labels = [], [], list[int]()
    reading = said(chain.from_iterable(files.values()), where=str(directory))
    for class_name, of_class in files.items():
        read = read_images(of_class, size=size, channels=channels, reading=reading)
        paths += list(read)
        images += list(read.values())
        labels += [classes.index(class_name)] * len(read)
    if not images:
        raise SettingsError(f"none of the images in {directory} can be read; the log names them")
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            raise SettingsError(
                f"{path} is {_sides(image)} pixels, but {paths[0]} is {_sides(images[0])}; add "
                "?size=32 (or another size) to the folder's name to bring all to one size"
            )
    order = _by_time(paths) if by_time else range(len(paths))
    return make_samples(
        x=np.stack([images[place] for place in order]),
        y=np.array([labels[place] for place in order]),
        where=str(directory),
        scale=PIXEL_SCALE,
        offset=PIXEL_OFFSET,
        class_names=classes,
    )


def _by_time(paths: Sequence[Path]) -> list[int]:
    """List places of files in the order in which they were written last."""
    written = [(path.stat().st_mtime_ns, str(path)) for path in paths]
    return sorted(range(len(paths)), key=written.__getitem__)


def read_images(
    paths: Sequence[Path],
    *,
    size: int | None,
    channels: int,
    reading: Iterator[Path] | None = None,
) -> dict[Path, NDArray[np.uint8]]:
    """Read the images of a class; name and count those that cannot be read.

    `reading` goes through the paths of all classes, and says how many there were so far.
    """
    read, broken = {}, list[str]()
    for path in said(paths, where=str(paths[0].parent)) if reading is None else reading:
        try:
            read[path] = read_image(path, size=size, channels=channels)
        except UnreadableImageError as error:
            broken.append(f"{name_of(path)} ({error})")
        if path == paths[-1]:  # What follows is of another class.
            break
    say_broken(broken, paths[0].parent, total=len(paths), what="images")
    return read


def name_of(path: Path) -> str:
    """Name a file of a class for people: some names have line ends, or no letters at all."""
    return path.name if path.name.isprintable() else ascii(path.name)


def say_broken(broken: Sequence[str], directory: Path, *, total: int, what: str) -> None:
    """Count the files that cannot be read, and name the first."""
    if broken:
        more = f" and {len(broken) - NUM_NAMED_FILES} more" if len(broken) > NUM_NAMED_FILES else ""
        log.warning(
            "%d of %d %s in %s cannot be read and are left out: %s%s",
            *(len(broken), total, what, directory),
            *(", ".join(broken[:NUM_NAMED_FILES]), more),
        )


def image_options(
    query: str, *, name: str, known: Collection[str] = IMAGE_OPTIONS
) -> tuple[int | None, int, bool]:
    """Read the side that images are brought to, None for their own, their channels, and order."""
    options = dict(options_in(query, source=name, takes="a folder", known=known))
    order = options.pop("order", "name")
    options.pop("test", None)
    if order not in {"name", "time"}:
        raise SettingsError(f"{name}: order is {order!r}; it has to be name or time")
    sizes = {option: whole_number(value, option, source=name) for option, value in options.items()}
    channels = sizes.get("channels", 3)
    if channels not in MODES:
        raise SettingsError(f"{name}: channels is {channels}; it has to be 1 (grey) or 3 (colour)")
    if (size := sizes.get("size", 1)) > MOST_PIXELS:
        raise SettingsError(f"{name}: size is {size}; it can be {MOST_PIXELS} at the most")
    return sizes.get("size"), channels, order == "time"


def _check_classes(test_dir: Path, files: ClassFiles, classes: tuple[str, ...]) -> None:
    for class_name in files:
        if class_name not in classes:
            raise SettingsError(
                f"{test_dir / class_name} is a class without training images; "
                f"the classes are {in_words(classes)}"
            )


def _sides(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]} x {image.shape[2]}"
