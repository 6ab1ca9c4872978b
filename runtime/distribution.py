"""The distribution that these packages are installed from: its name, its version, how to get it."""

import argparse
from collections.abc import Sequence
from functools import cache

DISTRIBUTION = "cpsl-edge"
"""What `pip install` is told; `cpsl` there is another project."""


@cache
def own_version() -> str:
    """Version of the installed distribution, read once: every status of a device is compared."""
    from importlib.metadata import version  # noqa: PLC0415 - it is as slow as all the rest of --help

    return version(DISTRIBUTION)


class VersionAction(argparse.Action):
    """Prints the version when it is asked for, and looks it up no sooner."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002
        values: str | Sequence[object] | None,  # noqa: ARG002
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        """Print it, and end the program."""
        parser.exit(message=f"cpsl {own_version()}\n")


def install_hint(extra: str) -> str:
    """Say what to type for one of its extras."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"
