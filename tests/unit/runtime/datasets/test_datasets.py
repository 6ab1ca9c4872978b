"""Data from every kind of source, and a clear sentence for what cannot be used."""

import gzip
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.datasets.digits import enlarge
from runtime.datasets.samples import Samples, check_labels
from runtime.datasets.shard import make_shard
from runtime.datasets.sources import load_source
from runtime.errors import SettingsError
from runtime.seeding import draw_batch
from tests.root import ROOT
from tests.turn import ASSIGNMENT, step_at

MNIST_DIR = Path(os.environ.get("CPSL_MNIST_DIR", ROOT.parent / "shared" / "data" / "mnist"))

OWN_DATA = """
import numpy as np
def windows():
    return np.zeros((6, 3, 8)), np.linspace(0, 1, 6)
def wrong():
    return "nothing"
"""


def write_idx(path: Path, values: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    content = bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder: Path, *, joint: str, ending: str) -> None:
    for part, num_samples in (("train", 6), ("t10k", 3)):
        images = np.arange(num_samples * 20, dtype=np.uint8).reshape(num_samples, 4, 5)
        write_idx(folder / f"{part}-images{joint}idx3-ubyte{ending}", images)
        labels = np.arange(num_samples, dtype=np.uint8) % 5
        write_idx(folder / f"{part}-labels{joint}idx1-ubyte{ending}", labels)


def test_digits_are_ten_classes_of_28_by_28_with_a_fifth_for_testing() -> None:
    digits = load_source("digits", base_dir=Path())
    assert digits.test is not None
    assert digits.train.x.shape == (1442, 1, 28, 28)
    assert digits.test.x.shape == (355, 1, 28, 28)
    assert [str(part.dtype) for part in (digits.train.x, digits.train.y)] == ["float32", "int64"]
    assert digits.num_classes == 10
    shares = np.bincount(digits.test.y) / np.bincount(np.r_[digits.train.y, digits.test.y])
    assert shares.min() > 0.19
    assert abs(digits.train.x.mean()) < 0.05
    assert abs(digits.train.x.std() - 1) < 0.05


def test_enlarging_keeps_flat_images_flat_and_ramps_straight() -> None:
    ramp = np.tile(np.arange(8, dtype=np.float32), (1, 8, 1))
    enlarged = enlarge(ramp, side=28)
    assert np.allclose(np.diff(enlarged[0, 0, 2:-2]), 8 / 28, atol=1e-5)
    assert np.allclose(enlarge(np.ones((1, 8, 8), dtype=np.float32), side=28), 1)


@pytest.mark.parametrize("joint", ["-", "."])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_files_are_read_under_every_usual_name(tmp_path: Path, joint: str, ending: str) -> None:
    write_mnist(tmp_path, joint=joint, ending=ending)
    data = load_source(f"mnist:{tmp_path.name}", base_dir=tmp_path.parent)
    assert data.test is not None
    assert (len(data.train), len(data.test), data.num_classes) == (6, 3, 5)
    assert data.sample_shape == (1, 4, 5)
    assert data.train.x[0, 0, 0, 1] == pytest.approx((1 / 255 - 0.1307) / 0.3081, abs=1e-6)


def test_a_shard_is_a_copy_and_images_stay_bytes_until_used(tmp_path: Path) -> None:
    write_mnist(tmp_path, joint="-", ending="")
    data = load_source(f"mnist:{tmp_path}", base_dir=Path())
    shard = data.train.take([4, 1])
    assert shard.stored.dtype == np.uint8
    assert not np.shares_memory(shard.stored, data.train.stored)
    assert np.array_equal(shard.x, data.train.x[[4, 1]])
    assert shard.y.tolist() == [4, 1]


def test_damaged_idx_files_are_named(tmp_path: Path) -> None:
    write_mnist(tmp_path, joint="-", ending="")
    images = tmp_path / "train-images-idx3-ubyte"
    whole = images.read_bytes()
    images.write_bytes(whole[:-1])
    with pytest.raises(SettingsError, match=r"train-images.* is damaged: .* 136 bytes, .* 135"):
        load_source(f"mnist:{tmp_path}", base_dir=Path())
    images.write_bytes(b"PK" + whole)
    with pytest.raises(SettingsError, match=r"train-images.* is no IDX file"):
        load_source(f"mnist:{tmp_path}", base_dir=Path())
    write_idx(images, np.zeros((5, 4, 5), dtype=np.uint8))
    with pytest.raises(SettingsError, match="5 inputs but 6 labels"):
        load_source(f"mnist:{tmp_path}", base_dir=Path())
    images.unlink()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(whole)[:-9])
    with pytest.raises(SettingsError, match=r"cannot read .*train-images-idx3-ubyte.gz"):
        load_source(f"mnist:{tmp_path}", base_dir=Path())


@pytest.mark.skipif(not MNIST_DIR.is_dir(), reason="no MNIST; set CPSL_MNIST_DIR to its folder")
def test_mnist_itself_is_whole_and_normalised() -> None:
    data = load_source(f"mnist:{MNIST_DIR}", base_dir=Path())
    assert data.test is not None
    assert (len(data.train), len(data.test), data.num_classes) == (60_000, 10_000, 10)
    assert abs(data.test.x.mean()) < 0.01
    assert abs(data.test.x.std() - 1) < 0.01


def test_npz_arrays_come_as_they_are(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(7, 3))
    np.savez(tmp_path / "both.npz", x_train=x, y_train=np.arange(7), x_test=x[:2], y_test=[0, 1])
    data = load_source("npz:both.npz", base_dir=tmp_path)
    assert data.test is not None
    assert np.array_equal(data.train.x, x.astype(np.float32))
    assert (len(data.test), data.num_classes) == (2, 7)


def test_an_npz_file_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    path, x = tmp_path / "data.npz", np.zeros((4, 2))
    faults: list[tuple[dict[str, object], str]] = [
        ({"images": x}, "holds images; it needs x and y"),
        ({"x": x, "y": np.arange(3)}, "4 inputs but 3 labels"),
        ({"x": x[:0], "y": np.arange(0)}, "is empty"),
        ({"x": x, "y": np.array([0, 1, -1, 0])}, "label -1 of sample 2 .* labels count from 0"),
        ({"x": x * np.nan, "y": np.arange(4)}, "not finite"),
        ({"x": np.zeros(4), "y": np.arange(4)}, r"inputs of shape \(4,\)"),
        ({"x": x, "y": np.zeros(4, dtype="M8[s]")}, "needs numbers"),
        ({"x": x, "y": np.array([0, 1, 2, 2**64 - 1], dtype="u8")}, r"sample 3 .* below 2\^63"),
        ({"x": x, "y": np.array([None] * 4)}, "y holds objects of Python; save text as"),
    ]
    for arrays, message in faults:
        np.savez(path, **arrays)  # type: ignore[arg-type]
        with pytest.raises(SettingsError, match=message):
            load_source("npz:data.npz", base_dir=tmp_path)
    path.write_bytes(b"not a zip file")
    with pytest.raises(SettingsError, match=r"cannot read .*data.npz as an npz file"):
        load_source("npz:data.npz", base_dir=tmp_path)


def make_images(folder: Path, *, side: int) -> None:
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for index in range(2):
            colour = (255 * label, 0, 0)
            Image.new("RGB", (side + index, side), colour).save(folder / name / f"{index}.png")


def test_image_folders_are_classes_by_name(tmp_path: Path) -> None:
    make_images(tmp_path / "pets" / "train", side=6)
    make_images(tmp_path / "pets" / "test", side=6)
    data = load_source("folder:pets?size=4", base_dir=tmp_path)
    assert data.test is not None
    assert data.train.x.shape == (4, 3, 4, 4)
    assert data.train.y.tolist() == [0, 0, 1, 1]
    assert data.train.x[3, :, 0, 0].tolist() == [1, -1, -1]
    assert load_source("folder:pets?size=4&channels=1", base_dir=tmp_path).sample_shape == (1, 4, 4)


def test_an_image_folder_that_cannot_be_used_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(tmp_path / "pets", side=6)
    with pytest.raises(SettingsError, match=r"1.png is 6 x 7 pixels, but .*0.png is 6 x 6; add"):
        load_source("folder:pets", base_dir=tmp_path)
    with pytest.raises(SettingsError, match="size is 'big'"):
        load_source("folder:pets?size=big", base_dir=tmp_path)
    with pytest.raises(SettingsError, match="has no images"):
        load_source("folder:pets/cat", base_dir=tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(SettingsError, match=r"pip install 'cpsl-edge\[images\]'"):
        load_source("folder:pets?size=4", base_dir=tmp_path)


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(SettingsError, match=r"pip install 'cpsl-edge\[digits\]'"):
        load_source("digits", base_dir=Path())


def test_a_factory_may_give_targets_that_are_no_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_data_for_tests.py").write_text(OWN_DATA)
    data = load_source("own_data_for_tests:windows", base_dir=tmp_path)
    assert data.sample_shape == (3, 8)
    assert data.train.y.dtype == np.float32
    assert data.num_classes is None
    with pytest.raises(SettingsError, match="returned a str"):
        load_source("own_data_for_tests:wrong", base_dir=tmp_path)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("mnits", "no data source 'mnits'; there are digits, mnist:DIR"),
        ("mnist:nowhere", "nowhere does not exist"),
        ("npz:.", "is a folder; it has to be a file"),
        ("mnist:.", "no train-images-idx3-ubyte"),
    ],
)
def test_a_source_that_is_not_there_says_what_is(
    tmp_path: Path, reference: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        load_source(reference, base_dir=tmp_path)


def test_a_label_beyond_the_networks_classes_is_named() -> None:
    samples = Samples(np.zeros((3, 2), dtype=np.float32), np.array([0, 5, 1]))
    with pytest.raises(SettingsError, match="label 5 of sample 1 in npz:a is out of range"):
        check_labels(samples, num_classes=5, where="npz:a")


def test_a_shard_keeps_the_bytes_it_was_given_and_scales_what_is_drawn() -> None:
    random = np.random.default_rng(0)
    stored = random.integers(0, 256, (40, 1, 3, 3), dtype=np.uint8)
    samples = Samples(stored, random.integers(0, 10, 40), scale=1 / 255, offset=-0.5)
    shard = make_shard("d0", ASSIGNMENT.model_copy(update={"held_out": 0.25}), samples)
    assert shard.samples.stored is stored
    step = step_at(0)
    x, y = shard.draw(step)
    chosen = draw_batch(
        30, shard.batch_size, seed=0, device="d0", round_=step.round, epoch=step.epoch
    )
    as_floats = stored.astype(np.float32) * np.float32(1 / 255) + np.float32(-0.5)
    assert x.tobytes() == as_floats[shard.kept][chosen].tobytes()
    assert y.tolist() == samples.y[shard.kept][chosen].tolist()
    held_out_x, _ = shard.evaluation()
    assert held_out_x.tobytes() == as_floats[shard.held_out].tobytes()
    assert set(shard.kept).isdisjoint(shard.held_out)


def test_files_without_a_test_set_keep_a_part_for_it(tmp_path: Path) -> None:
    x, y = np.arange(20.0).reshape(10, 2), np.repeat([0, 1], 5)
    np.savez(tmp_path / "all.npz", x=x, y=y)
    np.savez(tmp_path / "both.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    for source in ("npz:all.npz?test=0.2", "npy:.?test=0.2"):
        data = load_source(source, base_dir=tmp_path)
        assert data.test is not None
        assert data.test.x[:, 0].tolist() == [8, 18]
        assert len(data.train) == 8
    with pytest.raises(SettingsError, match="has a test set of its own; leave test= out"):
        load_source("npz:both.npz?test=0.2", base_dir=tmp_path)
    with pytest.raises(SettingsError, match="no option 'size'; npz takes test"):
        load_source("npz:all.npz?size=8", base_dir=tmp_path)
    with pytest.raises(SettingsError, match="no option 'test'; mnist takes none"):
        load_source("mnist:.?test=0.2", base_dir=tmp_path)


def test_numbers_that_look_like_pixels_or_classes_are_told_what_they_would_have_to_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x, y = np.arange(0, 256, 4).reshape(4, 4, 4), np.arange(4)
    for kept in (x.astype(np.uint8), x / 255, x + 200, x.reshape(4, 16)):
        np.savez(tmp_path / "x.npz", x=kept, y=y)
        load_source("npz:x.npz", base_dir=tmp_path)
    assert not caplog.messages
    np.savez(tmp_path / "x.npz", x=x, y=np.eye(4)[y])
    data = load_source("npz:x.npz", base_dir=tmp_path)
    assert "has whole numbers from 0 to 252 as int64, which stay as they are" in caplog.text
    with pytest.raises(SettingsError, match=r"become numbers of classes by y\.argmax\(axis=1\)"):
        check_labels(data.train, num_classes=4, where="x")
    np.savez(tmp_path / "x.npz", x=x, y=y)
    with pytest.raises(SettingsError, match="of each of 4 classes by itself, is none at all"):
        load_source("npz:x.npz?test=0.2", base_dir=tmp_path)
