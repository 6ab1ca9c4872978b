"""What psutil says of this machine and this process; what a platform lacks stays unknown."""

import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from runtime.wire.published import DeviceProfile

_STATUS = Path("/proc/self/status")

_PROCESSOR_WORDS = ("cpu", "core", "k10", "soc")


@cache
def _this_process() -> psutil.Process:
    """Look this process up once: that takes longer than what is asked of it."""
    return psutil.Process()


def resident_bytes() -> int:
    """Memory that the process holds now."""
    return int(_this_process().memory_info().rss)


def peak_resident_bytes() -> int:
    """The most that it has held since it started."""
    if _STATUS.exists():  # Linux; its getrusage counts the parent's memory until the exec, too.
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    if sys.platform == "win32":
        return int(_this_process().memory_info().peak_wset)
    import resource  # noqa: PLC0415

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Elsewhere in kilobytes.


def memory_sentence() -> str:
    """Both, for people."""
    peak_mb, now_mb = peak_resident_bytes() / 1e6, resident_bytes() / 1e6
    return f"peak memory of this process {peak_mb:.0f} MB, now {now_mb:.0f} MB"


def measure_profile(
    device: str,
    *,
    engine: str,
    num_samples: int,
    sample_shape: tuple[int, ...],
    label_counts: tuple[int, ...] | None = None,
    label_names: tuple[str, ...] | None = None,
    min_cut: str = "",
) -> DeviceProfile:
    """Read the machine's facts now."""
    memory = psutil.virtual_memory()
    return DeviceProfile(
        device=device,
        engine=engine,
        machine=platform.machine(),
        num_cores=psutil.cpu_count() or 1,
        memory_bytes=memory.total,
        free_memory_bytes=memory.available,
        resident_bytes=resident_bytes(),
        load_fraction=load_fraction(psutil),
        cpu_hz=cpu_hz(psutil),
        temperature_c=temperature_c(psutil),
        battery_fraction=battery_fraction(psutil),
        plugged_in=plugged_in(psutil),
        num_samples=num_samples,
        sample_shape=sample_shape,
        label_counts=label_counts,
        label_names=label_names,
        min_cut=min_cut,
        measured_at_unix_s=time.time(),
    )


def load_fraction(source: object) -> float | None:
    """Part of all cores that was busy over the last minute."""
    averages = _ask(source, "getloadavg")
    num_cores = _ask(source, "cpu_count")
    return float(averages[0] / num_cores) if averages and num_cores else None


def cpu_hz(source: object) -> float | None:
    """Present frequency of the cores; psutil gives megahertz, and 0 where it does not know."""
    frequency = _ask(source, "cpu_freq")
    return float(frequency.current * 1e6) if frequency and frequency.current else None


def temperature_c(source: object) -> float | None:
    """The hottest sensor of the processor, or the hottest of all where none is named so."""
    groups: dict[str, list[Any]] = _ask(source, "sensors_temperatures") or {}
    of_cpu = [
        name for name in groups if any(word in name for word in ("cpu", "core", "k10", "soc"))
    ]
    readings = [one.current for name in of_cpu or groups for one in groups[name]]
    return max((float(reading) for reading in readings if reading is not None), default=None)


def battery_fraction(source: object) -> float | None:
    """How full the battery is, from 0 to 1."""
    battery = _ask(source, "sensors_battery")
    if battery is None or battery.percent is None:
        return None
    return min(1.0, max(0.0, float(battery.percent) / 100))


def plugged_in(source: object) -> bool | None:
    """Whether the battery is being charged, or held; None where there is none, or nobody knows."""
    battery = _ask(source, "sensors_battery")
    return None if battery is None else battery.power_plugged


def _ask(source: object, name: str) -> Any:  # noqa: ANN401 - whatever psutil has on this platform
    """Call a function that a platform may lack, or have and fail at; None then."""
    function: Callable[[], Any] | None = getattr(source, name, None)
    if function is None:
        return None
    with suppress(OSError, NotImplementedError, RuntimeError, AttributeError):
        return function()
    return None
