"""A parser of arguments that tells no password when it refuses some, and one of `KEY=VALUE`."""

import argparse
import re
import tomllib
from typing import NoReturn

from runtime.addresses import without_password
from runtime.errors import SettingsError

_URL = re.compile(r"\S+://\S*@\S*")


class Parser(argparse.ArgumentParser):
    """As argparse's, and those of its commands."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, with what a URL lets one in by left out; ends the program."""
        super().error(_URL.sub(lambda found: without_password(found[0], instead=":***"), message))


def parse_assignment(text: str) -> tuple[str, object]:
    """Take `KEY=VALUE` apart; the value is TOML, or a string where it is no TOML.

    The value `none` takes a key back, as if the file left it out.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise SettingsError(f"--set {text!r} is not of the form KEY=VALUE")
    if value.strip() == "none":
        return key.strip(), None
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return key.strip(), value.strip()
