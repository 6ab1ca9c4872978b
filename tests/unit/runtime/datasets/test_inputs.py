"""Samples without labels, for a trained model to say something of."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.datasets.inputs import load_asked
from runtime.errors import SettingsError


def _asked(what: str, folder: Path) -> tuple[np.ndarray, tuple[str, ...], bool]:
    asked = load_asked(f"inputs:{what}", part=None, base_dir=folder)
    return asked.samples.x, asked.names, asked.has_labels


def test_arrays_tables_and_images_are_read_without_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full((2, 3), 255, np.uint8))
    assert _asked("x.npy", tmp_path)[0].tolist() == [[1, 1, 1], [1, 1, 1]]
    (tmp_path / "t.csv").write_text("b,a\n2,1\n4,3\n")
    assert _asked("t.csv", tmp_path)[0].tolist() == [[1, 2], [3, 4]]  # As with a target.
    for name, grey in (("b.png", 0), ("a.png", 255)):
        Image.new("L", (4, 2), grey).save(tmp_path / name)
    images, names, has_labels = _asked(".?channels=1&size=2", tmp_path)
    assert (names, has_labels) == (("a.png", "b.png"), False)
    assert images.tolist() == [[[[1, 1], [1, 1]]], [[[-1, -1], [-1, -1]]]]


def test_images_are_brought_to_what_the_model_takes_unless_it_is_said_otherwise(
    tmp_path: Path,
) -> None:
    for name, sides in (("a.png", (4, 4)), ("b.png", (6, 3))):
        Image.new("RGB", sides).save(tmp_path / name)

    def shape_of(query: str, taken: tuple[int, ...]) -> tuple[int, ...]:
        asked = load_asked(f"inputs:.{query}", part=None, base_dir=tmp_path, shape=taken)
        return asked.samples.sample_shape

    assert shape_of("", (1, 2, 2)) == (1, 2, 2)
    assert shape_of("?channels=3", (1, 2, 2)) == (3, 2, 2)
    assert shape_of("?size=5", (3, 2, 2)) == (3, 5, 5)
    with pytest.raises(SettingsError, match=r"differ in size; add \?size=32"):
        shape_of("", (3, 6, 3))


def test_of_a_table_the_columns_that_the_model_takes_are_taken_in_its_order(
    tmp_path: Path,
) -> None:
    (tmp_path / "t.csv").write_text("city,b,a,kind\nBonn,2,1,x\nKiel,,7,y\nUlm,4,3,x\n")
    features = ("b", "a")
    asked = load_asked("inputs:t.csv?missing=drop", part=None, base_dir=tmp_path, features=features)
    assert asked.samples.x.tolist() == [[2, 1], [4, 3]]
    assert asked.names == ("row 1", "row 3")
    for source in ("inputs:t.csv?missing=drop&features=a,b", "csv:t.csv?target=kind&missing=drop"):
        only = f"{source}&drop=city" if "target" in source else source
        found = load_asked(only, part=None, base_dir=tmp_path, features=features)
        assert found.samples.x.tolist() == [[2, 1], [4, 3]]
    with pytest.raises(SettingsError, match=r"no column 'c', which the model takes; it takes a, c"):
        load_asked("inputs:t.csv", part=None, base_dir=tmp_path, features=("a", "c"))
    with pytest.raises(SettingsError, match=r"the model takes the columns a, c, and .* has a, b"):
        load_asked(
            "csv:t.csv?target=kind&drop=city&missing=drop",
            part=None,
            base_dir=tmp_path,
            features=("a", "c"),
        )


@pytest.mark.parametrize(
    ("reference", "part", "reason"),
    [
        ("inputs:none.npy", None, "does not exist"),
        ("inputs:.", None, "holds no image that can be read, and no array; give inputs:FILE"),
        ("inputs:x.npy", "test", "has no parts to choose from; leave --part out"),
        ("npz:y.npz", "test", "has no test set; take --part train"),
    ],
)
def test_what_cannot_be_predicted_is_said(
    reference: str, part: str | None, reason: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "y.npz", x=np.zeros((2, 3)), y=np.zeros(2, np.int64))
    with pytest.raises(SettingsError, match=reason):
        load_asked(reference, part=part, base_dir=tmp_path)
