"""The distribution that these packages are installed from: its name, its version, how to get it."""

from importlib.metadata import version

DISTRIBUTION = "cpsl-edge"
"""What `pip install` is told; `cpsl` there is another project."""


def own_version() -> str:
    """Version of the installed distribution."""
    return version(DISTRIBUTION)


def install_hint(extra: str) -> str:
    """Say what to type for one of its extras."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"
