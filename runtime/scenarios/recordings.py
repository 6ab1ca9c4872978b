"""Reading recordings of real links: lines of seconds and Mbit/s, or Mahimahi's of packets.

A Mahimahi trace has a line for each packet that can leave, the millisecond at which it does; it
begins anew after the last. Its two ways are files of one name, one `.up` and one `.down`.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from profiles.recording import Recording
from profiles.units import BITS_PER_BYTE

MAX_LINES = 1_000_000
MAX_FILES = 1000
MAX_CHARACTERS = 1000
"""Of a line: what is longer is no recording, and is not read to its end."""
MOST_MBPS = 1e6
"""What says more is not in Mbit/s."""
PACKET_BYTES = 1500
"""What leaves at each line of a Mahimahi trace."""
WINDOW_MS = 100
"""Packets of so long together are a rate."""
RIGHT = (
    "right would be seconds and Mbit/s, like '12.0 3.5', or seconds and Mbit/s up and down; or, of "
    "Mahimahi, whole milliseconds alone"
)


class RecordingError(ValueError):
    """A recording that cannot be used; says where and what would be right."""


def read_recordings(path: Path) -> tuple[tuple[Recording, Recording], ...]:
    """Read a file, or every file of a folder by its name; each gives a link's way up and down."""
    try:
        found = _files(path)
    except OSError as error:  # A folder that others may not read, or a link in a circle.
        raise RecordingError(f"recorded = '{path}' cannot be read: {error.strerror}") from error
    if not 0 < len(found) <= MAX_FILES:
        raise RecordingError(f"recorded = '{path}' holds {len(found)} files, not 1 to {MAX_FILES}")
    links = dict.fromkeys(_ways(each) for each in found)
    return tuple(_read(up) if up == down else (_read(up)[0], _read(down)[1]) for up, down in links)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(each for each in path.iterdir() if each.is_file() and each.name[0] != ".")
    if path.is_file():
        return [path]
    why = (
        "it is neither a file nor a folder" if path.exists() else "there is no such file or folder"
    )
    raise RecordingError(f"recorded = '{path}': {why}")


def _ways(path: Path) -> tuple[Path, Path]:
    """Name the files of a link's way up and down: one, or two of one name."""
    up, down = path.with_suffix(".up"), path.with_suffix(".down")
    is_pair = path in (up, down) and up.is_file() and down.is_file()
    return (up, down) if is_pair else (path, path)


def _read(path: Path) -> tuple[Recording, Recording]:
    try:
        lines = list(_lines(path))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise RecordingError(f"the recording {path} cannot be read: {why}") from error
    if not lines:
        raise RecordingError(f"the recording {path} holds no line of seconds and Mbit/s")
    try:
        if len(lines[0]) == 1:
            both = _of_packets(path, lines)
            return both, both
        up, down = (
            Recording.of_samples(path.name, [(row[0], 1e6 * row[at]) for row in lines])
            for at in (1, -1)
        )
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix(f"Value error, {path.name}: ")
        raise RecordingError(f"the recording {path}: {why}") from error
    return up, down


def _of_packets(path: Path, lines: Sequence[Sequence[float]]) -> Recording:
    """Take the packets of each window as a rate; what a period carries stays the same."""
    period_ms = lines[-1][0]
    if period_ms == 0:
        raise RecordingError(f"the recording {path}: its last packet has to leave later than at 0")
    windows = Counter(max(math.ceil(row[0] / WINDOW_MS) - 1, 0) for row in lines)
    rates = {0: 0.0}  # Window to bit/s, where these change.
    for window, count in sorted(windows.items()):
        width_ms = min((window + 1) * WINDOW_MS, period_ms) - window * WINDOW_MS
        rates[window] = count * PACKET_BYTES * BITS_PER_BYTE / (width_ms / 1e3)
        rates[window + 1] = 0.0
    del rates[max(rates)]
    from_s = tuple(window * WINDOW_MS / 1e3 for window in rates)
    return Recording(
        name=path.name, from_s=from_s, bps=tuple(rates.values()), period_s=period_ms / 1e3
    )


def _lines(path: Path) -> Iterator[list[float]]:
    """Give the numbers of each line; the first may be a heading, and # begins a comment."""
    before, may_be_heading = list[float](), True
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_CHARACTERS + 1), ""), start=1):
            words = _words(line.partition("#")[0])
            if not words:
                continue
            row, is_first, may_be_heading = _numbers(words), may_be_heading, False
            if not row and is_first:
                continue
            wrong = _wrong(row, before)
            if wrong:
                raise RecordingError(f"line {number} of {path} is '{line.strip()[:40]}'; {wrong}")
            if number > MAX_LINES:
                raise RecordingError(f"the recording {path} is longer than {MAX_LINES} lines")
            before = row
            yield row


def _words(line: str) -> list[str]:
    """Part a line; where semicolons or tabs part it, a comma is a decimal one."""
    line = line.replace('"', "").strip()
    if ";" in line or "\t" in line:
        return re.split(r"[;\s]+", line.replace(",", "."))
    return re.split(r"[,\s]+", line) if line else []


def _numbers(words: Sequence[str]) -> list[float]:
    """Give the numbers, or none if there is something else among them."""
    try:
        return [float(word) for word in words]
    except ValueError:
        return []


def _wrong(row: Sequence[float], before: Sequence[float]) -> str:
    """Say what is wrong with the numbers of a line, those of the line before being given."""
    if len(row) not in (1, 2, 3) or (before and len(row) != len(before)):
        return RIGHT
    if not all(map(math.isfinite, row)):
        return "these have to be numbers, not nan or inf"
    return _wrong_in_packet(row, before) if len(row) == 1 else _wrong_in_rates(row, before)


def _wrong_in_packet(row: Sequence[float], before: Sequence[float]) -> str:
    if not row[0].is_integer() or row[0] < 0:
        return RIGHT
    return "milliseconds never fall" if before and row[0] < before[0] else ""


def _wrong_in_rates(row: Sequence[float], before: Sequence[float]) -> str:
    if before and row[0] <= before[0]:
        return f"seconds have to rise, and the line before has {before[0]:.12g}"
    if min(row[1:]) < 0:
        return "rates have to be 0 or more"
    return "that is more than any link carries; rates are in Mbit/s" * (max(row[1:]) > MOST_MBPS)
