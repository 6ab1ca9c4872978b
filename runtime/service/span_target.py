"""Where a process's spans go, as its command line says."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from runtime.errors import SettingsError
from runtime.service.spans import recorded_by


@contextmanager
def spans_to(target: str | None, *, program: str) -> Iterator[None]:
    """Send all spans of the process to an OTLP receiver (`http://…`), or into a file.

    Without a target nothing is recorded, and OpenTelemetry not even imported. SettingsError or
    StorageError where it cannot be done.
    """
    if target is None:
        yield
        return
    for module in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
        if not _is_installed(module):
            raise SettingsError(
                f"--spans needs {module}, not installed here: pip install 'cpsl-edge[otel]'"
            )
    from runtime.service.otel import open_recorder  # noqa: PLC0415 - not every process has it

    with open_recorder(target, program=program) as recorder, recorded_by(recorder):
        yield


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # Not even what it would be in.
        return False
