"""Telling a service manager, and whoever looks at a file, that a program is alive.

systemd's protocol (sd_notify) is a datagram to the socket that `NOTIFY_SOCKET` names: `READY=1`
once, `WATCHDOG=1` again and again, and a `STATUS=` for people.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from runtime.errors import StorageError

_INTERVAL_S, _DEAD_S = 5.0, 30.0

log = logging.getLogger(__name__)


@asynccontextmanager
async def health_told(path: Path | None, status: Callable[[], str]) -> AsyncIterator[None]:
    """Tell both for the length of the block, by the loop that has to be alive.

    The file is JSON: `status` in words and `at_unix_s`. One that is older than half a minute is
    that of a program that hangs. StorageError at once if it cannot be written.
    """
    notify("READY=1")
    if path is not None:
        _write(path, status())
    task = asyncio.create_task(_tell(path, status), name="health")
    try:
        yield
    finally:
        notify("STOPPING=1")
        task.cancel()
        await asyncio.wait({task})
        _remove(path)


async def _tell(path: Path | None, status: Callable[[], str]) -> None:
    pause_s = min(_INTERVAL_S, _watchdog_s() / 3)
    while True:
        words = status()
        notify(f"WATCHDOG=1\nSTATUS={words}")
        if path is not None:
            try:
                _write(path, words)
            except StorageError as error:
                log.warning("%s", error)
        await asyncio.sleep(pause_s)


def notify(message: str) -> bool:
    """Send a message to systemd; False where nobody waits for one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
        return False
    if address.startswith("@"):  # a name that is in no file system
        address = f"\0{address[1:]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto(message.encode(), address)
        except OSError:
            return False
    return True


def _watchdog_s() -> float:
    """Seconds after which systemd takes us for dead; infinity if it does not watch us."""
    is_ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if is_ours and text.isdecimal() and int(text) else float("inf")


def _remove(path: Path | None) -> None:
    if path is not None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _write(path: Path, words: str) -> None:
    draft = path.with_name(f"{path.name}.new")
    try:
        draft.write_text(json.dumps({"status": words, "at_unix_s": time.time()}), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise StorageError(f"health file {path} cannot be written: {error.strerror}") from error


def is_alive(path: Path) -> bool:
    """Whether the file is of a program that is alive, as a container's health check asks."""
    try:
        told = json.loads(path.read_bytes())
        age_s = time.time() - float(told["at_unix_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return 0 <= age_s < _DEAD_S


if __name__ == "__main__":  # python -m runtime.service.health FILE
    sys.exit(not is_alive(Path(sys.argv[1])))
