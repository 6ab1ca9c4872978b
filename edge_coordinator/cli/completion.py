"""The script by which a shell completes the commands and flags of `cpsl`."""

from importlib.util import find_spec

from edge_coordinator.cli.flags import build_parser, leaf_parsers
from runtime.distribution import install_hint
from runtime.errors import SettingsError

_FILES = ("config", "resume", "output", "health_file", "cafile", "certfile", "keyfile", "fleet")
"""Flags whose values are files or folders, beside those that the parser takes as paths."""


def completion_script(shell: str) -> str:
    """Write the script of a shell; SettingsError where what writes it is not installed."""
    if find_spec("shtab") is None:
        raise SettingsError(
            f"completion scripts need shtab, not installed here: {install_hint('completion')}"
        )
    import shtab  # noqa: PLC0415

    parser = build_parser()
    for command in leaf_parsers(parser):
        for action in command._actions:  # noqa: SLF001 - argparse has no other way
            if action.dest in _FILES or getattr(action.type, "__name__", "") == "Path":
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    script: str = shtab.complete(parser, shell=shell)
    return script
