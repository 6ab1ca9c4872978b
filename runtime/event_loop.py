"""What an event loop may lack: watching sockets, standard input and signals.

The loop that Windows has by default (and needs, to start processes) has none of `add_reader`,
`add_writer` and `add_signal_handler`. Where they are missing, one thread a loop watches with
`select` instead, and calls back on the loop. It ends with the last socket.
"""

import asyncio
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Protocol
from weakref import WeakKeyDictionary


class Readiness(Enum):
    """What is waited for of a socket."""

    READ = "read"
    WRITE = "write"


class SocketWatcher(Protocol):
    """Calls back on the loop, for as long as a socket can be read or written."""

    def watch(self, sock: socket.socket, what: Readiness, call: Callable[[], object]) -> None:
        """Call back from now on; in place of what was called before."""

    def forget(self, sock: socket.socket, what: Readiness) -> None:
        """Call back no more; nothing happens if nobody was."""


def socket_watcher() -> SocketWatcher:
    """The running loop's own means, or the thread that stands in for them."""
    loop = asyncio.get_running_loop()
    if _watches_sockets(loop):
        return _LoopWatcher(loop)
    if loop not in _THREADED:
        _THREADED[loop] = _ThreadedWatcher(loop)
    return _THREADED[loop]


def call_at_end_of_input(call: Callable[[], object]) -> None:
    """Call back on the running loop once standard input has ended."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        _call_soon(loop, call)

    threading.Thread(target=read, name="end of input", daemon=True).start()


def call_on_signals(numbers: Iterable[signal.Signals], call: Callable[[], object]) -> None:
    """Call back on the running loop when the process is told to end."""
    loop = asyncio.get_running_loop()
    for number in numbers:
        try:
            loop.add_signal_handler(number, call)
        except NotImplementedError:
            signal.signal(number, lambda _number, _frame: _call_soon(loop, call))


class _LoopWatcher:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def watch(self, sock: socket.socket, what: Readiness, call: Callable[[], object]) -> None:
        add = self._loop.add_reader if what is Readiness.READ else self._loop.add_writer
        add(sock, call)

    def forget(self, sock: socket.socket, what: Readiness) -> None:
        remove = self._loop.remove_reader if what is Readiness.READ else self._loop.remove_writer
        remove(sock)


class _ThreadedWatcher:
    """One thread for all sockets of a loop; each is left alone until its callback has run."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._watched: dict[tuple[socket.socket, Readiness], Callable[[], object]] = {}
        self._called: set[tuple[socket.socket, Readiness]] = set()
        self._thread: threading.Thread | None = None
        self._wake: socket.socket | None = None

    def watch(self, sock: socket.socket, what: Readiness, call: Callable[[], object]) -> None:
        with self._lock:
            self._watched[sock, what] = call
            if self._thread is None:
                self._wake, waking = socket.socketpair()
                self._thread = threading.Thread(
                    target=self._run, args=(waking,), name="watch sockets", daemon=True
                )
                self._thread.start()
            self._wake_up()

    def forget(self, sock: socket.socket, what: Readiness) -> None:
        with self._lock:
            self._watched.pop((sock, what), None)
            self._called.discard((sock, what))
            self._wake_up()

    def _run(self, waking: socket.socket) -> None:
        with waking:
            while self._wait(waking):
                pass

    def _wait(self, waking: socket.socket) -> bool:
        """Wait once; False if there is nothing to wait for any more."""
        with self._lock:
            if not self._watched or self._loop.is_closed():
                self._end()
                return False
            waited = [key for key in self._watched if key not in self._called]
        reads = [sock for sock, what in waited if what is Readiness.READ]
        writes = [sock for sock, what in waited if what is Readiness.WRITE]
        try:
            readable, writable, broken = select.select([waking, *reads], writes, writes)
        except (OSError, ValueError):  # One was closed meanwhile: its owner is about to say so.
            readable, writable, broken = [waking], [], []
        if waking in readable:
            waking.recv(4096)
        ready = {(sock, Readiness.READ) for sock in readable if sock is not waking}
        ready |= {(sock, Readiness.WRITE) for sock in (*writable, *broken)}
        with self._lock:
            self._called |= ready & self._watched.keys()
        for key in ready:
            _call_soon(self._loop, lambda key=key: self._call(key))  # type: ignore[misc]
        return True

    def _call(self, key: tuple[socket.socket, Readiness]) -> None:
        call = self._watched.get(key)
        if call is not None:
            call()
        with self._lock:
            self._called.discard(key)
            self._wake_up()

    def _wake_up(self) -> None:
        if self._wake is not None:
            self._wake.send(b"\0")

    def _end(self) -> None:
        if self._wake is not None:
            self._wake.close()
        self._wake = self._thread = None


_THREADED: WeakKeyDictionary[asyncio.AbstractEventLoop, _ThreadedWatcher] = WeakKeyDictionary()


def _watches_sockets(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this loop can watch a socket; asked of one that exists for it alone."""
    probe, other = socket.socketpair()
    with probe, other:
        try:
            loop.add_reader(probe, int)
        except NotImplementedError:
            return False
        loop.remove_reader(probe)
        return True


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Call back on a loop from another thread, unless it is closed."""
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        if not loop.is_closed():
            raise
