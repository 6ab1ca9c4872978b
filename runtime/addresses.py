"""Addresses as people write them: paths, and URLs without what in them lets one in."""

import os
from pathlib import Path


def without_password(text: str, *, instead: str = "") -> str:
    """Return what may be a broker's URL with `instead` for the colon and any password in it."""
    credentials = credentials_of(text)
    user, colon, _ = credentials.partition(":")
    if not colon:
        return text
    before, _, after = text.rpartition(f"{credentials}@")
    return f"{before}{user}{instead}@{after}"


def credentials_of(text: str) -> str:
    """Return what stands between the scheme and the last @, whatever characters it has."""
    _, scheme_end, rest = text.partition("://")
    return (rest if scheme_end else text).rpartition("@")[0]


def own_path(text: str | Path, *, base_dir: Path) -> Path:
    """Begin at a folder, unless the path does elsewhere: `~` is one's home, `~name` another's.

    Where nobody has that name, `~name` is a name like any other.
    """
    return base_dir / os.path.expanduser(text)  # noqa: PTH111 - Path's raises where there is none
