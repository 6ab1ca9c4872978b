"""A parser of arguments that tells no password when it refuses some."""

import argparse
import re
from typing import NoReturn

from runtime.url_credentials import without_password

_URL = re.compile(r"\S+://\S*@\S*")


class Parser(argparse.ArgumentParser):
    """As argparse's, and those of its commands."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, with what a URL lets one in by left out; ends the program."""
        super().error(_URL.sub(lambda found: without_password(found[0], instead=":***"), message))
