"""The files that are written for people to read, with what they lack filled in."""

from collections.abc import Mapping
from importlib.resources import files


def filled(name: str, values: Mapping[str, str] | None = None) -> bytes:
    """Return a template with each `@KEY@` replaced by its value."""
    text = (files("edge_coordinator.fleet") / "templates" / name).read_text(encoding="utf-8")
    for key, value in (values or {}).items():
        text = text.replace(f"@{key}@", value)
    return text.encode()
