"""Make glibc keep the memory of large messages instead of returning it after each one.

Returned memory has to be mapped in again, page fault by page fault, for the next message: with
messages of 100 kB and more that costs more time than the network does.
"""

import ctypes
import platform
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from malloc.h
_MMAP_THRESHOLD_BYTES = 32 * 1024 * 1024  # the most that glibc takes
_TRIM_THRESHOLD_BYTES = 64 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Set both of glibc's thresholds for this process; returns whether that was done.

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
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        and mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)
    )
