"""A program as a process: its memory over days, and whoever reads what it prints."""

import ctypes
import errno
import gc
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

from runtime.errors import StorageError, root_cause

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # from malloc.h
_MEBIBYTE = 1024 * 1024
_MMAP_THRESHOLD_BYTES = 32 * _MEBIBYTE  # the most that every glibc takes
_ALL_BYTES = 1024 * _MEBIBYTE  # what newer ones take as well
_TRIM_THRESHOLD_BYTES = 64 * _MEBIBYTE
_CLUSTER_TRIM_THRESHOLD_BYTES = 256 * _MEBIBYTE


def keep_freed_memory(*, of_clusters: bool) -> bool:
    """Make glibc keep the memory of large messages instead of returning it after each one.

    Returned memory has to be mapped in again, page fault by page fault, for the next message: with
    messages of 100 kB and more that costs more time than the network does. Sets both of glibc's
    thresholds for this process; returns whether that was done.

    `of_clusters` also keeps what a step over the batches of a whole cluster computes: with 500
    devices its tensors are above the usual threshold, and half of its time were page faults. One
    arena holds all of it then, since those of threads have too little room.

    Called once, at the start of a program. Does nothing where the C library is another one.
    Setting only one threshold would make things slower: it turns glibc's own adjustment off.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    if of_clusters and mallopt(_M_MMAP_THRESHOLD, _ALL_BYTES) and mallopt(_M_ARENA_MAX, 1):
        return bool(mallopt(_M_TRIM_THRESHOLD, _CLUSTER_TRIM_THRESHOLD_BYTES))
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        and mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)
    )


@contextmanager
def prompt_collection() -> Iterator[None]:
    """Have Python free cyclic garbage within some rounds, however much was loaded before.

    Python puts a full collection off until a quarter as many new objects survive as there are old
    ones. Next to the 350,000 of torch and matplotlib those were 1,500 rounds, and 20 MB of them.
    What exists now is therefore left out of every collection until the end of the block.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def without_collection() -> Iterator[None]:
    """Load libraries and networks without looking for cyclic garbage, for some seconds.

    All of it stays: among the hundreds of thousands of objects of torch and what stands on it the
    search found nothing, and took a tenth of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def printable_streams() -> None:
    """Let no name of a file end a program because it cannot be printed, nor a closed output.

    What the encoding lacks is printed as an escape; what is printed to nowhere is dropped.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def until_reader_leaves() -> Iterator[None]:
    """End the block in silence when whoever reads our output has had enough, as `head` has.

    StorageError if what is printed goes to a disk that is full.
    """
    try:
        yield
        sys.stdout.flush()
    except* BrokenPipeError:
        _drop_output()
    except* OSError as errors:
        error = root_cause(errors)
        if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _drop_output()
        raise StorageError(f"cannot write: {error.strerror}; make room and go on") from error


def _drop_output() -> None:
    """Have what is printed from now on go nowhere, and that which nobody took yet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


COMPUTE_THREAD = "compute"
"""How the names of threads begin that compute for somebody else, and may never end."""


def end_despite_threads(prefix: str, code: int, *, patience_s: float) -> None:
    """End the process at once if threads whose names begin so compute on for longer than this.

    The interpreter waits for its threads; nobody can stop one in the midst of a computation.
    """
    end_s = time.monotonic() + patience_s
    for thread in threading.enumerate():
        if thread.name.startswith(prefix):
            thread.join(max(0.0, end_s - time.monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
