"""Files of a fleet: whole, with the rights they need from the moment they are there."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import StorageError

PRIVATE, READABLE = 0o600, 0o644
_BROKER_USER = "mosquitto"


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder of one's own; keys for their owner alone."""
    with in_one_sentence(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in files.items():
            _write(folder / name, content, READABLE if name.endswith(".service") else PRIVATE)


def _write(path: Path, content: bytes, mode: int) -> None:
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")  # 0600 from the start
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).chmod(mode)
        Path(draft).replace(path)
    except OSError:
        Path(draft).unlink(missing_ok=True)
        raise


@contextmanager
def in_one_sentence(path: Path) -> Iterator[None]:
    """Say what could not be read or written."""
    try:
        yield
    except OSError as error:
        place = error.filename or path
        raise StorageError(f"{place}: {(error.strerror or str(error)).lower()}") from error


def closed_to_broker(folder: Path) -> Path | None:
    """Give the folder above that Mosquitto, which leaves root, cannot pass; None if there is none.

    It would start, and then not be able to read what has changed.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    return next((above for above in folder.parents if not above.stat().st_mode & 0o001), None)


def give_to_broker(folder: Path) -> None:
    """Let Mosquitto read its files: started by root it becomes a user of its own."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return
    with contextlib.suppress(LookupError):  # no such user: the broker is elsewhere
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, _BROKER_USER)
