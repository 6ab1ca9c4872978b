"""Results of a run, written one by one: whatever one of them meets, the others are written."""

from collections.abc import Callable

from runtime.errors import SettingsError


class Results:
    """Writes a run's files, and keeps why some of them could not be."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        """A sentence on each that cannot be had of this network, whatever the disk."""
        self._unwritten: list[SettingsError] = []

    def attempt(self, name: str, write: Callable[[], object]) -> bool:
        """Write one, and whether that worked. The user's own network may raise anything."""
        try:
            write()
        except SettingsError as error:
            self._unwritten.append(error)
            return False
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
            self.missing.append(f"{name} was not written: {type(error).__name__}: {reason:.200}")
            return False
        return True

    def check_written(self) -> None:
        """SettingsError for the first that the disk did not take."""
        if self._unwritten:
            raise self._unwritten[0]
