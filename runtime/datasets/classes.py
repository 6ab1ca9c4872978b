"""Labels by name: how text labels get numbers, and how labels are numbered in an agreed order.

A device's folder knows only its own classes, so a number means nothing beyond it: names are what
devices and the test set have in common.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import SettingsError
from runtime.wire.names import ClassNames, as_class_name, in_words


def is_text(y: NDArray[Any]) -> bool:
    """Whether labels are text; Python objects count by the first of them."""
    return y.dtype.kind in "UST" or (y.dtype == object and isinstance(y.flat[0], str | bytes))


def number_text(y: NDArray[Any], *, where: str) -> tuple[NDArray[np.int64], ClassNames]:
    """Number text labels in the alphabetical order of their names: labels [sample], and names."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise SettingsError(
            f"{where} has text labels of shape {y.shape}; as text a sample has one label"
        )
    values = y.tolist()
    name_of: dict[object, str] = {}
    for index, value in enumerate(values):
        if value not in name_of:
            place = f"the label of sample {index} in {where}"
            name_of[value] = as_class_name(_text(value, where=place), where=place)
    names = tuple(sorted(set(name_of.values())))
    number_of = {name: number for number, name in enumerate(names)}
    return np.array([number_of[name_of[value]] for value in values], dtype=np.int64), names


def _text(value: object, *, where: str) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise SettingsError(f"{where} is {value!r}; text labels are UTF-8") from error
    if not isinstance(value, str):
        raise SettingsError(f"{where} is {value!r}; the others are text, so it has to be too")
    return value


def renumber(
    y: NDArray[np.int64], names: ClassNames, classes: ClassNames, *, where: str
) -> NDArray[np.int64]:
    """Number labels, which count along `names`, along `classes` instead.

    SettingsError names the classes of `where` that have samples and are none of these.
    """
    if names == classes:
        return y
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = [names[label] for label in np.unique(y) if names[label] not in numbers]
    if unknown:
        raise _unknown(unknown, classes, where=where)
    return np.array([numbers.get(name, -1) for name in names], dtype=np.int64)[y]


def union(parts: Iterable[ClassNames]) -> ClassNames:
    """All names, in alphabetical order; as they are where all parts have the same."""
    distinct = set(parts)
    return distinct.pop() if len(distinct) == 1 else tuple(sorted(set().union(*distinct)))


def _unknown(unknown: Sequence[str], classes: ClassNames, *, where: str) -> SettingsError:
    known = {name.casefold(): name for name in classes}
    close = get_close_matches(unknown[0].casefold(), known, n=1, cutoff=0.8)
    hint = f"; is {unknown[0]!r} meant to be {known[close[0]]!r}?" if close else ""
    which = f"classes {in_words(unknown)}" if len(unknown) > 1 else f"class {unknown[0]!r}"
    return SettingsError(
        f"{where} has the {which}, which the job does not know: its classes are "
        f"{in_words(classes)}{hint or '; list all in the data.classes of the job'}"
    )
