"""A folder of recordings: one folder for each class, as images have it.

Every recording becomes [channel, time] in -1 to 1, cut or filled with silence to one length. WAV
files are read by the standard library, others (flac, ogg, mp3) by soundfile.
"""

import wave
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from runtime.datasets.folder import find_classes, name_of, say_broken
from runtime.datasets.options import MOST, SourceOptions, part_for_testing
from runtime.datasets.samples import DataSet, make_samples
from runtime.distribution import install_hint
from runtime.errors import SettingsError

OPTIONS = ("seconds", "rate", "channels", "test")
"""What recordings take after the `?`."""
WAV = ".wav"
SUFFIXES = frozenset({WAV, ".flac", ".ogg", ".mp3"})

Clip = NDArray[np.float32]


class UnreadableClipError(ValueError):
    """A file is no recording, or one that cannot be brought to the others' form."""


def load_audio_folder(directory: Path, options: SourceOptions) -> DataSet:
    """Read a folder of recordings; those that cannot be read are left out, and said."""
    rate, channels = options.count("rate", 16000), options.count("channels", 1)
    num_readings = round(options.amount("seconds", 1.0) * rate)
    if not 1 <= num_readings <= MOST:
        raise SettingsError(
            f"{options.source}: seconds times rate is {num_readings:g} readings of each recording; "
            f"it has to be from 1 to {MOST}"
        )
    classes = find_classes(directory, SUFFIXES, what="recording")
    clips, labels, broken = [], list[int](), list[str]()
    for number, files in enumerate(classes.values()):
        for path in files:
            try:
                clip = read_clip(path, rate=rate, channels=channels)
            except UnreadableClipError as error:
                broken.append(f"{path.parent.name}/{name_of(path)} ({error})")
                continue
            clips.append(_fitted(clip, num_readings))
            labels.append(number)
    say_broken(broken, directory, total=len(clips) + len(broken), what="recordings")
    if not clips:
        raise SettingsError(f"none of the recordings in {directory} can be read: {broken[0]}")
    samples = make_samples(
        x=np.stack(clips), y=np.array(labels), where=options.source, class_names=tuple(classes)
    )
    return part_for_testing(samples, options)


def read_clip(path: Path, *, rate: int, channels: int) -> Clip:
    """Read one recording as [channel, time]; its channels are averaged to one where one is asked.

    UnreadableClipError where it has another rate, for what would resample it is not here.
    """
    try:
        found, clip = _read_wav(path) if path.suffix.lower() == WAV else _read_other(path)
    except SettingsError:
        raise
    except Exception as error:  # A damaged file raises nearly anything.
        said = "it ends early" if isinstance(error, EOFError) else str(error)
        raise UnreadableClipError(said or type(error).__name__) from error
    if found != rate:
        raise UnreadableClipError(f"{found} readings a second, not rate={rate}")
    if not clip.size:
        raise UnreadableClipError("it is empty")
    if channels == 1:
        return np.asarray(clip.mean(axis=0, keepdims=True), np.float32)
    if len(clip) != channels:
        raise UnreadableClipError(f"{len(clip)} channels, not channels={channels}")
    return clip


def _read_wav(path: Path) -> tuple[int, Clip]:
    """Rate, and readings of 8, 16, 24 or 32 bits."""
    with wave.open(str(path), "rb") as file:
        width, num_channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
        content = file.readframes(file.getnframes())
    if width > 4:
        raise UnreadableClipError(f"{8 * width} bits a reading; read are 8, 16, 24 and 32")
    content = content[: len(content) - len(content) % (width * num_channels)]
    if width == 1:
        values = np.frombuffer(content, np.uint8) / 128 - 1
    else:  # Little-endian: the highest bytes of 32 bits, whatever the width.
        padded = np.zeros((len(content) // width, 4), np.uint8)
        padded[:, 4 - width :] = np.frombuffer(content, np.uint8).reshape(-1, width)
        values = padded.view("<i4")[:, 0] / 2**31
    return rate, values.astype(np.float32).reshape(-1, num_channels).T


def _read_other(path: Path) -> tuple[int, Clip]:
    values, rate = _import_soundfile().read(path, dtype="float32", always_2d=True)
    return int(rate), values.T


def _fitted(clip: Clip, num_readings: int) -> Clip:
    """Cut to a length, or fill with silence."""
    short = max(0, num_readings - clip.shape[1])
    return np.pad(clip[:, :num_readings], ((0, 0), (0, short)))


def _import_soundfile() -> ModuleType:
    try:
        return import_module("soundfile")
    except ImportError as error:
        raise SettingsError(
            f"recordings other than {WAV} need soundfile: {install_hint('audio')}"
        ) from error
