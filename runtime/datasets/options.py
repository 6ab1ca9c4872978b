"""What stands after the `?` of a data source, and parting samples for testing by it."""

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import unquote

import numpy as np

from runtime.datasets.samples import DataSet, Samples, make_data_set
from runtime.errors import SettingsError

MOST = 10**9
"""Of anything that an option counts."""


@dataclass(frozen=True)
class SourceOptions:
    """Options of one source, `a=1&b=x,y`, and its name for what is said of them."""

    values: dict[str, str]
    source: str

    def text(self, option: str, default: str, *, among: Collection[str] = ()) -> str:
        """One option; SettingsError if it is none of `among`, where these are all there are."""
        value = self.values.get(option, default)
        if among and value not in among:
            raise SettingsError(
                f"{self.source}: {option} is {value!r}; it can be {', '.join(among)}"
            )
        return value

    def names(self, option: str, *, among: Collection[str]) -> list[str]:
        """A list with commas between; a name that has a comma itself stands alone."""
        value = self.values.get(option, "")
        if not value or value in among:
            return [value] if value else []
        return [name.strip() for name in value.split(",")]

    def count(self, option: str, default: int) -> int:
        """A whole number above 0."""
        return whole_number(self.values.get(option, str(default)), option, source=self.source)

    def amount(self, option: str, default: float) -> float:
        """A number above 0."""
        value = self.values.get(option, str(default))
        try:
            amount = float(value)
        except ValueError:
            amount = 0.0
        if not 0 < amount < np.inf:
            raise SettingsError(
                f"{self.source}: {option} is {value!r}; it has to be a number above 0"
            )
        return amount

    @property
    def test_fraction(self) -> float:
        """What part of the samples is for testing: `test=0.2`; 0 if nothing is said."""
        value = self.values.get("test", "0")
        try:
            fraction = float(value)
        except ValueError:
            fraction = np.nan
        if not 0 <= fraction < 1:
            raise SettingsError(
                f"{self.source}: test is {value!r}; it is the fraction to test on, as in test=0.2"
            )
        return fraction


def part_source(rest: str, *, scheme: str, known: Collection[str]) -> tuple[str, SourceOptions]:
    """Part what follows a source's scheme at the `?`; SettingsError for an unknown option."""
    path, _, query = rest.partition("?")
    source = f"{scheme}:{path}"
    return path, SourceOptions(options_in(query, source=source, takes=scheme, known=known), source)


def options_in(query: str, *, source: str, takes: str, known: Collection[str]) -> dict[str, str]:
    """Read `a=1&b=x,y`; SettingsError for an option that is unknown, or there twice.

    `%26` stands for `&` and so on, but a `+` is a plus: names of columns have them.
    """
    values: dict[str, str] = {}
    for part in query.split("&") if query else ():
        option, _, value = part.partition("=")
        if option not in known:
            taken = ", ".join(known) or "none"
            raise SettingsError(f"{source}: no option {option!r}; {takes} takes {taken}")
        if option in values:
            raise SettingsError(f"{source}: {option} is there twice; give one of them")
        values[option] = unquote(value)
    return values


def whole_number(value: str, option: str, *, source: str) -> int:
    """Read a whole number above 0, and not beyond all use."""
    if not value.isdecimal() or not 0 < int(value) <= MOST:
        raise SettingsError(
            f"{source}: {option} is {value!r}; it has to be a whole number from 1 to {MOST}"
        )
    return int(value)


def with_test_part(data: DataSet, options: SourceOptions) -> DataSet:
    """Part what has no test set of its own, if the options say so."""
    if not options.test_fraction:
        return data
    if data.test is not None:
        raise SettingsError(f"{options.source} has a test set of its own; leave test= out")
    return part_for_testing(data.train, options)


def part_for_testing(samples: Samples, options: SourceOptions) -> DataSet:
    """Keep the fraction that the options say for testing, evenly spaced (in each class)."""
    name, fraction = options.source, options.test_fraction
    if not fraction:
        return make_data_set(samples, None, name=name)
    y = samples.y
    groups = [np.arange(len(y))]
    if y.ndim == 1 and y.dtype.kind == "i":
        groups = [np.flatnonzero(y == label) for label in np.unique(y)]
    is_test = np.zeros(len(y), dtype=bool)
    for group in groups:
        places = np.arange(int(len(group) * fraction)) + 1
        is_test[group[np.floor(places / fraction).astype(int) - 1]] = True
    if not is_test.any():
        each = f", of each of {len(groups)} classes by itself," if len(groups) > 1 else ""
        raise SettingsError(
            f"{name}: test={fraction:g} of {len(y)} samples{each} is none at all; take a larger "
            "part"
        )
    train, test = (samples.take(np.flatnonzero(part)) for part in (~is_test, is_test))
    return make_data_set(train, test, name=name)
