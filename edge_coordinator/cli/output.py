"""What a command prints: lines for people, JSON for programs, or its answer alone."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table

Form = Literal["text", "json", "quiet"]


class Output(Console):
    """Where a command prints to.

    As JSON, only documents and events are printed, each on one line; quietly, only answers. What
    is printed in any other way is for people who watch.
    """

    def __init__(
        self, form: Form = "text", *, file: IO[str] | None = None, width: int | None = None
    ) -> None:
        """Paths and names may look like markup, and are none."""
        super().__init__(
            file=file, width=width, markup=False, emoji=False, quiet=form in {"json", "quiet"}
        )
        self.form = form

    @property
    def is_json(self) -> bool:
        """Whether programs read it."""
        return self.form == "json"

    def answer(self, document: object, *shown: RenderableType) -> None:
        """Print what the command was asked for: a document, or what people are shown of it."""
        if self.is_json:
            self._write(document)
            return
        with self._aloud():
            for part in shown:
                self.print(part, soft_wrap=isinstance(part, str), highlight=False)

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Print something that has happened; people are told in other ways."""
        if self.is_json:
            self._write({"event": name, **fields})

    def say(self, words: str, name: str = "", fields: Mapping[str, Any] | None = None) -> None:
        """Tell people who watch, and programs where it has a name."""
        self.print(words, soft_wrap=True, highlight=False)
        if name:
            self.event(name, fields or {})

    def _write(self, document: object) -> None:
        file = self.file if self.file is not None else sys.stdout
        file.write(json.dumps(document, allow_nan=False) + "\n")
        file.flush()

    @contextmanager
    def _aloud(self) -> Iterator[None]:
        was_quiet, self.quiet = self.quiet, False
        try:
            yield
        finally:
            self.quiet = was_quiet


def plain_table(*columns: str) -> Table:
    """Begin a table of words, without a frame."""
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        shown.add_column(column, overflow="fold")
    return shown
