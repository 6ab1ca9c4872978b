"""The energy that this machine has drawn, where Linux meters it (RAPL, by its powercap interface).

A count of microjoules for each processor package, from 0 on again past its range; of the package
alone, and of whatever runs on it. On many systems only root may read it: then there is no meter.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
PACKAGES = "intel-rapl:[0-9]*"
_UJ_PER_J = 1e6


def start_meter(root: Path = POWERCAP) -> Callable[[], float | None]:
    """Begin to count; what is returned gives the joules since then, or None without a meter."""
    before, ranges = _read(root, "energy_uj"), _read(root, "max_energy_range_uj")

    def joules() -> float | None:
        after = _read(root, "energy_uj")
        if not before or after.keys() != before.keys() or ranges.keys() != before.keys():
            return None
        counts = ((after[one] - before[one]) % (ranges[one] + 1) for one in before)
        return sum(counts) / _UJ_PER_J

    return joules


def _read(root: Path, name: str) -> Mapping[str, int]:
    """Read a figure of each package; none if any of them cannot be read."""
    packages = [path for path in root.glob(PACKAGES) if path.name.count(":") == 1]
    try:
        return {path.name: int((path / name).read_text(encoding="ascii")) for path in packages}
    except (OSError, ValueError):
        return {}
