"""Recordings as samples: every width of WAV, one length, and those that cannot be read."""

import logging
import wave
from pathlib import Path

import numpy as np
import pytest

from runtime.datasets.sources import load_source
from runtime.errors import SettingsError

RATE = 100
LOUD = {1: b"\xc0", 2: b"\x00\x40", 3: b"\x00\x00\x40", 4: b"\x00\x00\x00\x40"}
"""Half of the full scale, by bytes of a reading."""


def _write(path: Path, *, width: int = 2, channels: int = 1, rate: int = RATE, count: int) -> None:
    path.parent.mkdir(exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, count, "NONE", ""))
        file.writeframes(LOUD[width] * count * channels)


def test_readings_of_every_width_are_the_same_and_of_one_length(tmp_path: Path) -> None:
    for width in LOUD:
        _write(tmp_path / "hum" / f"{width}.wav", width=width, channels=width, count=30 * width)
    _write(tmp_path / "beep" / "a.wav", count=60)
    data = load_source(f"audio:{tmp_path}?seconds=0.6&rate={RATE}", base_dir=Path())
    assert data.train.class_names == ("beep", "hum")
    assert data.train.x.shape == (5, 1, 60)
    assert np.unique(data.train.x).tolist() == [0.0, 0.5]
    assert data.train.x[1, 0].tolist() == [0.5] * 30 + [0.0] * 30


def test_recordings_that_cannot_be_used_are_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _write(tmp_path / "hum" / "a.wav", count=10)
    _write(tmp_path / "hum" / "fast.wav", rate=44100, count=10)
    (tmp_path / "hum" / "odd.wav").write_bytes(b"nothing")
    with caplog.at_level(logging.WARNING):
        data = load_source(f"audio:{tmp_path}?rate={RATE}", base_dir=Path())
    assert len(data.train) == 1
    assert "2 of 3 recordings" in caplog.text
    assert "fast.wav (44100 readings a second, not rate=100)" in caplog.text
    with pytest.raises(SettingsError, match=r"none of the recordings .* not rate=8000"):
        load_source(f"audio:{tmp_path}?rate=8000", base_dir=Path())
    for seconds in ("1e-9", "1e9"):
        with pytest.raises(SettingsError, match="it has to be from 1 to 1000000000"):
            load_source(f"audio:{tmp_path}?seconds={seconds}", base_dir=Path())
