"""An environment as a device has it: the device's dependencies alone, installed from this tree."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.root import ROOT

SOURCES = ("profiles", "runtime", "device_agent", "edge_coordinator")
LARGE = ("numpy", "numpy.libs", "onnxruntime")


def build_device_environment(folder: Path) -> Path:
    """Install what a device installs, below a folder; the environment's Python."""
    source, environment = folder / "source", folder / "venv"
    source.mkdir()
    for package in SOURCES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("*.pyc"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    _run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    constraints = ROOT / "constraints.txt"
    _run(*pip, "install", "--quiet", "--no-compile", "--constraint", constraints, source)
    return python


def lacks(python: Path, module: str) -> bool:
    """Whether a module cannot be imported there."""
    found = subprocess.run(
        [python, "-c", f"import {module}"],
        env=device_variables(),
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return found.returncode != 0


def device_variables() -> dict[str, str]:
    """Ours, but as a device has it: no path to this source tree, and .pyc files are kept."""
    ours = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if name not in ours}


def installed_bytes(folder: Path) -> dict[str, int]:
    """Bytes of each top-level name in the environment's packages, without .pyc files."""
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    return {entry.name: bytes_of(files_of(entry)) for entry in packages.iterdir()}


def files_of(entry: Path) -> list[Path]:
    """All files of a folder, or the file itself."""
    return [entry] if entry.is_file() else [path for path in entry.rglob("*") if path.is_file()]


def bytes_of(files: Iterable[Path]) -> int:
    """Size of some files without those that Python compiles."""
    return sum(path.stat().st_size for path in files if path.suffix != ".pyc")


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, env=device_variables())
