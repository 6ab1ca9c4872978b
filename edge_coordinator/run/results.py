"""Results of a run, written one by one: whatever one of them meets, the others are written."""

from collections.abc import Callable

from rich.text import Text

from runtime.errors import StorageError


class Results:
    """Writes a run's files, and keeps why some of them could not be."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        """A sentence on each that cannot be had of this network, whatever the disk."""
        self._unwritten: list[StorageError] = []

    def attempt(self, name: str, write: Callable[[], object]) -> bool:
        """Write one, and whether that worked. The user's own network may raise anything."""
        try:
            write()
        except StorageError as error:
            self._unwritten.append(error)
            return False
        except Exception as error:
            self.missing.append(f"{name} was not written: {_reason(error)}")
            return False
        return True

    def check_written(self) -> None:
        """StorageError for the first that the disk did not take."""
        if self._unwritten:
            raise self._unwritten[0]


def _reason(error: BaseException) -> str:
    """The first line of what was wrong in the first place, without a terminal's colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = Text.from_ansi(str(error).strip()).plain.partition("\n")[0]
    return f"{type(error).__name__}: {first:.200}"
