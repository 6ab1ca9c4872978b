"""Flags of `cpsl-agent` that stand in a file, which other users of the device cannot read."""

import argparse
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from runtime.errors import SettingsError

_FILES = ("cafile", "certfile", "keyfile")
"""Their paths begin where the file is."""


def with_file(
    words: Sequence[str],
    parser: argparse.ArgumentParser,
    *,
    other: argparse.ArgumentParser | None = None,
) -> list[str]:
    """Return a command line with what its `--config FILE` says before all else.

    Whatever the command line says itself comes later, and so counts; what only the `other` parser
    knows is left out. SettingsError says what of the file cannot be.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    flags, rest = finder.parse_known_args(words)
    if flags.config is None:
        return list(words)
    read, known = list(_words(flags.config)), _flags_of(parser)
    everything = known | (_flags_of(other) if other else set())
    for word in read:
        if (flag := word.partition("=")[0]) not in everything:
            raise SettingsError(f"{flags.config}: {flag[2:]!r} is no flag of {parser.prog}")
    return [*(word for word in read if word.partition("=")[0] in known), *rest]


def _flags_of(parser: argparse.ArgumentParser) -> set[str]:
    return set(re.findall(r"--[a-z][a-z-]*", parser.format_usage()))


def _words(path: Path) -> Iterator[str]:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {(error.strerror or '').lower()}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    for key, value in tree.items():
        for one in value if isinstance(value, list) else [value]:
            match one:
                case True:
                    yield f"--{key}"
                case False:
                    pass
                case str() if key in _FILES:
                    yield f"--{key}={path.parent / one}"
                case str() | int() | float():
                    yield f"--{key}={one}"
                case _:
                    raise SettingsError(
                        f"{path}: {key} is {one!r:.80}; write a string, a number, true or a list"
                    )
