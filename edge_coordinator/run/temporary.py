"""Places for what programs below us write on the side, where next to nothing can be written to.

In a container all but the output may be read-only, and the user may have no home, and no name.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime.errors import SettingsError


@contextmanager
def temporary_files_near(folder: Path) -> Iterator[None]:
    """Put temporary files into `folder` where there is no other place for them.

    Processes that are started meanwhile put theirs there too.
    """
    with ExitStack() as stack:
        if not _has_place_for_temporary_files():
            stack.enter_context(_temporary_files_in(folder))
        if "MPLCONFIGDIR" not in os.environ and not os.access(_home(), os.W_OK):
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix="cpsl-plots-"))
            stack.enter_context(_environment("MPLCONFIGDIR", made))
        yield


def _has_place_for_temporary_files() -> bool:
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(dir=folder.resolve(), prefix=".temporary-")
    except OSError as error:
        raise SettingsError(f"output {folder} cannot be written: {error.strerror}") from error
    with made as path, _environment("TMPDIR", path):
        tempfile.tempdir = path
        try:
            yield
        finally:
            tempfile.tempdir = None


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _home() -> str:
    return os.path.expanduser("~")  # noqa: PTH111 - Path.home() fails for a user without a name
