"""Csv files as people and programs write them: encodings, separators, line ends, and blanks."""

import csv
import gzip
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.datasets.options import SourceOptions
from runtime.distribution import install_hint
from runtime.errors import SettingsError

if TYPE_CHECKING:
    import polars as pl

SEPARATORS = {",": ",", ";": ";", "tab": "\t", "|": "|", "space": " "}
"""What may stand between columns, as it is stated."""
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
"""Texts of a csv file that mean that there is no value."""
_GUESSED = ",;\t|"
_GZIP = b"\x1f\x8b"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_MOST_BYTES = 2**20
"""That are looked at for the first line."""


@dataclass(frozen=True)
class CsvForm:
    """How a csv file is to be read."""

    separator: str
    line_end: str
    header: tuple[str, ...]
    """Names of the columns, as they stand there."""


def read_csv(path: Path, options: SourceOptions) -> "pl.DataFrame":
    """Read a csv file without blank lines at its end, and without columns that have no name.

    Such a column holds nothing, or the numbers of the rows, as pandas writes them.
    """
    polars = import_polars("csv")
    stated = options.text("separator", "auto", among=("auto", *SEPARATORS))
    decimal = options.text("decimal", ".", among=(".", ","))
    form = _csv_form(path, SEPARATORS.get(stated))
    if form.separator == decimal:
        raise SettingsError(
            f"{options.source}: a comma cannot be between columns and within numbers; "
            "take another separator= or leave decimal= out"
        )
    names = [name.strip() for name in form.header]
    are_names = options.values.get("targets") == "names"
    targets = options.names("target", among=names) if are_names else []
    frame = polars.read_csv(
        path,
        separator=form.separator,
        eol_char=form.line_end,
        infer_schema_length=None,
        schema_overrides={
            raw: polars.String
            for raw, name in zip(form.header, names, strict=True)
            if name in targets
        },
        null_values=list(MISSING),
        decimal_comma=decimal == ",",
        glob=False,
    )
    named = [
        _without_white_space(column, decimal, is_name=name in targets).alias(name)
        for name, column in zip(names, frame, strict=False)
        if name
    ]
    whole: pl.DataFrame = polars.DataFrame(named)
    filled = polars.any_horizontal(polars.all().is_not_null())
    rows = whole.select(filled).to_series().arg_true().to_list() if named else []
    return whole.head(max(rows, default=-1) + 1)


def _without_white_space(column: "pl.Series", decimal: str, *, is_name: bool) -> "pl.Series":
    """Take numbers from text that has them, perhaps with blanks and signs around."""
    polars = import_polars("csv")
    if column.dtype != polars.String or is_name:
        return column
    text = column.str.strip_chars().replace([*MISSING], None)
    if decimal == "," and text.str.contains(".", literal=True).any():
        return column  # A dot there is between thousands, or the comma is none of a number's.
    for kind in (polars.Int64, polars.Float64):
        plain = text.str.strip_prefix("+").str.replace(decimal, ".", literal=True)
        numbers: pl.Series = plain.cast(kind, strict=False)
        if numbers.null_count() == text.null_count() < len(text):
            return numbers
    return column


def _csv_form(path: Path, separator: str | None) -> CsvForm:
    """Look at a file's first line; SettingsError for what is no such text.

    Without a separator it is the one that the line has most of, outside quotes.
    """
    head = _head(path)
    line_end = "\n" if b"\n" in head or b"\r" not in head else "\r"
    line = head.partition(line_end.encode())[0]
    try:
        header = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wrong = line[error.start]
        raise SettingsError(
            f"{path} is no UTF-8 text (its first line has the byte 0x{wrong:02x}); save it as UTF-8"
        ) from error
    unquoted = re.sub(r'"[^"]*"', "", header)
    separator = separator or max(_GUESSED, key=unquoted.count)
    names = next(csv.reader(io.StringIO(header), delimiter=separator), [])
    columns = [name.strip() for name in names]
    if twice := [name for index, name in enumerate(columns) if name and name in columns[:index]]:
        raise SettingsError(
            f"{path} has two columns named {twice[0]!r}; each has to have a name of its own"
        )
    return CsvForm(separator, line_end, tuple(names))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(_MOST_BYTES)
    if head.startswith(_GZIP):
        with gzip.open(path) as packed:
            head = packed.read(_MOST_BYTES)
    if head.startswith(_UTF_16):
        raise SettingsError(f"{path} is UTF-16 text; save it as UTF-8")
    if b"\0" in head:
        raise SettingsError(f"{path} is no text: it has a byte of 0")
    return head


def import_polars(scheme: str) -> Any:  # noqa: ANN401 - a module
    """Import polars; SettingsError says how to install it."""
    try:
        import polars  # noqa: PLC0415 - only tables need it
    except ImportError as error:
        raise SettingsError(
            f"the data source '{scheme}:' needs polars: {install_hint('tables')}"
        ) from error
    return polars
