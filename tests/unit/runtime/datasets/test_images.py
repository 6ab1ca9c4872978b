"""Folders of images: what counts as a class and as an image, and one rule for each mode."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from runtime.datasets.folder import load_image_folder
from runtime.datasets.images import image_as_bytes
from runtime.datasets.samples import DataSet
from runtime.datasets.sources import load_source
from runtime.errors import SettingsError

GREY = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
"""0 to 255 in equal steps."""
SHAPE = np.where(GREY > 100, 255, 0).astype(np.uint8)


def _grey_of(folder: Path, *, channels: int = 1) -> DataSet:
    return load_source(f"folder:{folder}?channels={channels}", base_dir=Path())


def _alpha() -> Image.Image:
    """A black shape on nothing."""
    black = np.zeros((4, 4), dtype=np.uint8)
    return Image.fromarray(np.dstack([black, black, black, SHAPE]), "RGBA")


def _clear_palette() -> Image.Image:
    """A palette whose first colour, black, is transparent."""
    image = Image.fromarray((SHAPE > 0).astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 0, 0, 0])
    image.info["transparency"] = 0
    return image


def _clear_grey_of_16_bits() -> Image.Image:
    image = Image.fromarray(np.where(SHAPE > 0, 0, 7).astype("<u2"))
    image.info["transparency"] = 7
    return image


@pytest.mark.parametrize(
    ("ending", "make", "expected"),
    [
        ("png", lambda: Image.fromarray(GREY), GREY),
        ("png", lambda: Image.fromarray(GREY.astype("<u2") * 257), GREY),
        ("tif", lambda: Image.fromarray(GREY.astype("<u2") * 257), GREY),
        ("ppm", lambda: Image.fromarray(GREY.astype("<u2") * 257), GREY),
        ("tif", lambda: Image.fromarray(GREY.astype("f4") / 255), GREY),
        ("png", lambda: Image.fromarray(SHAPE > 0), SHAPE),
        ("png", _alpha, 255 - SHAPE),
        ("png", _clear_palette, 255 - SHAPE),
        ("png", _clear_grey_of_16_bits, 255 - SHAPE),
        ("gif", lambda: Image.fromarray(GREY), GREY),
        ("tif", lambda: Image.fromarray(np.dstack([255 - GREY] * 3 + [GREY * 0]), "CMYK"), GREY),
    ],
)
def test_a_picture_is_the_same_numbers_however_it_is_stored(
    tmp_path: Path,
    ending: str,
    make: Callable[[], Image.Image],
    expected: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> None:
    (tmp_path / "a").mkdir()
    make().save(tmp_path / "a" / f"0.{ending}")
    assert _grey_of(tmp_path).train.stored[0, 0].tolist() == expected.tolist()
    with Image.open(tmp_path / "a" / f"0.{ending}") as image:
        assert (image_as_bytes(image) == expected).all()


def test_the_cameras_orientation_is_applied(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    picture = Image.fromarray(GREY[:2])
    turned = picture.getexif()
    turned[0x0112] = 6  # Stored on its side.
    picture.save(tmp_path / "a" / "0.png", exif=turned, pnginfo=PngInfo())
    expected = np.rot90(GREY[:2], k=-1)
    assert _grey_of(tmp_path).train.stored[0, 0].tolist() == expected.tolist()


def test_folders_that_nobody_put_there_or_without_an_image_are_no_classes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stray = ["lost+found", "@eaDir", ".ipynb_checkpoints", "__MACOSX", "System Volume Information"]
    for name in ("cat", "dog", "notes", "later", *stray):
        (tmp_path / name).mkdir()
    for name in ("cat", "dog", *stray):
        Image.fromarray(GREY).save(tmp_path / name / "0.png")
    (tmp_path / "cat" / "._0.png").write_bytes(b"left by another system")
    (tmp_path / "notes" / "a.heic").touch()
    train = _grey_of(tmp_path).train
    assert (train.class_names, train.y.tolist()) == (("cat", "dog"), [0, 1])
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "later is no class: it is empty" in said
    assert "notes is no class: it has no image in it, only .heic" in said
    assert said.count("is no class") == 2


def test_what_is_no_image_is_named_and_counted_and_the_rest_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cat").mkdir()
    for number in range(3):
        Image.fromarray(GREY).save(tmp_path / "cat" / f"{number}.png")
    whole = (tmp_path / "cat" / "0.png").read_bytes()
    (tmp_path / "cat" / "cut.png").write_bytes(whole[:-30])
    (tmp_path / "cat" / "huge.ppm").write_bytes(b"P5 30000 30000 255\n")
    (tmp_path / "cat" / "text.jpg").write_bytes(b"no image")
    Image.fromarray(np.full((4, 4), 812, dtype="f4")).save(tmp_path / "cat" / "warm.tif")
    assert len(_grey_of(tmp_path).train) == 3
    said = caplog.records[0].getMessage()
    assert f"4 of 7 images in {tmp_path}/cat cannot be read and are left out: cut.png (" in said
    assert "900000000 pixels" in said
    assert "text.jpg (not an image) and 1 more" in said


def test_floats_of_an_unstated_range_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cat").mkdir()
    Image.fromarray(np.linspace(-3, 812, 16, dtype="f4").reshape(4, 4)).save(
        tmp_path / "cat" / "0.tif"
    )
    with pytest.raises(SettingsError, match=r"none of the images in .* can be read"):
        _grey_of(tmp_path)
    assert "its values run from -3 to 812; those of a float image are 0 to 1" in caplog.text


def test_by_time_files_come_as_they_were_written_whatever_their_class(tmp_path: Path) -> None:
    for place, (name, shade) in enumerate([("b/1.png", 30), ("a/9.png", 10), ("b/0.png", 20)]):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (2, 2), shade).save(path)
        os.utime(path, ns=(place * 10**9, place * 10**9))
    train = load_image_folder(tmp_path, "channels=1&order=time", name="folder").train
    assert train.stored[:, 0, 0, 0].tolist() == [30, 10, 20]
    assert train.y.tolist() == [1, 0, 1]
    with pytest.raises(SettingsError, match="order is 'size'; it has to be name or time"):
        load_image_folder(tmp_path, "order=size", name="folder")


def test_a_folder_keeps_a_part_to_test_on_and_says_which_files_it_passes_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for shade in range(5):
            Image.new("L", (2, 2), 10 * shade).save(tmp_path / name / f"{shade}.png")
    for name in ("phone.HEIC", "Thumbs.db", "desktop.ini"):
        (tmp_path / "cat" / name).touch()
    data = load_source(f"folder:{tmp_path}?channels=1&test=0.2", base_dir=Path())
    assert data.test is not None
    assert data.test.y.tolist() == [0, 1]
    assert len(data.train) == 8
    assert "no images by their names are left out: 1 .heic; taken are" in caplog.text
