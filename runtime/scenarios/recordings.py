"""Reading recordings of real links: lines of seconds and Mbit/s."""

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from profiles.recording import Recording

MAX_LINES = 1_000_000
MAX_FILES = 1000
_SEPARATOR = re.compile(r"[,;\s]+")


class RecordingError(ValueError):
    """A recording that cannot be used; says where and what would be right."""


def read_recordings(path: Path) -> tuple[tuple[Recording, Recording], ...]:
    """Read a file, or every file of a folder by its name; each gives a link's way up and down."""
    if not path.exists():
        raise RecordingError(f"recorded = '{path}': there is no such file or folder")
    found = [path]
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if each.is_file() and each.name[0] != ".")
    if not 0 < len(found) <= MAX_FILES:
        raise RecordingError(f"recorded = '{path}' holds {len(found)} files, not 1 to {MAX_FILES}")
    return tuple(_read(each) for each in found)


def _read(path: Path) -> tuple[Recording, Recording]:
    try:
        rows = list(_rows(path))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise RecordingError(f"the recording {path} cannot be read: {why}") from error
    if not rows:
        raise RecordingError(f"the recording {path} holds no line of seconds and Mbit/s")
    try:
        up, down = (
            Recording.of_samples(path.name, [(row[0], 1e6 * row[at]) for row in rows])
            for at in (1, -1)
        )
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise RecordingError(f"the recording {path}: {why}") from error
    return up, down


def _rows(path: Path) -> Iterator[list[float]]:
    """Give the numbers of each line; the first may be a heading, and # begins a comment."""
    width = 0
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            words = _SEPARATOR.split(line.partition("#")[0].strip())
            if words == [""]:
                continue
            try:
                row = [float(word) for word in words]
            except ValueError:
                if width == 0 and number == 1:
                    continue
                row = []
            if len(row) not in (2, 3) or (width and len(row) != width):
                raise RecordingError(
                    f"line {number} of {path} is '{line.strip()[:40]}'; right would be seconds and "
                    "Mbit/s, like '12.0 3.5', or seconds and Mbit/s up and down"
                )
            if number > MAX_LINES:
                raise RecordingError(f"the recording {path} is longer than {MAX_LINES} lines")
            width = len(row)
            yield row
