"""Which devices a job is for, by the tags that people gave them."""

from collections.abc import Mapping

Tags = Mapping[str, str]


def parse_where(where: str) -> dict[str, str]:
    """Take `room=lab,kind=pi` apart; the settings have checked its form."""
    return dict(part.split("=", 1) for part in where.split(",") if part)


def why_unwanted(where: Mapping[str, str], tags: Tags) -> str:
    """Say which tag a device lacks; nothing if it has all."""
    missing = [f"{key}={value}" for key, value in where.items() if tags.get(key) != value]
    return f"not tagged {', '.join(missing)}" if missing else ""
