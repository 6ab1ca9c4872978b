"""What memory this process has taken."""

import sys
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    """Memory that the process holds now."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """The most that it has held since it started."""
    if _STATUS.exists():  # Linux; its getrusage counts the parent's memory until the exec, too.
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # noqa: PLC0415

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Elsewhere in kilobytes.


def memory_sentence() -> str:
    """Both, for people."""
    peak_mb, now_mb = peak_resident_bytes() / 1e6, resident_bytes() / 1e6
    return f"peak memory of this process {peak_mb:.0f} MB, now {now_mb:.0f} MB"
