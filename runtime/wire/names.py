"""Names of classes and of features: how text becomes one of a class, and how many may travel.

White space around a name does not count, within it counts as one space, and equal letters are equal
however Unicode composes them (NFC); small and capital letters differ.
"""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from runtime.errors import SettingsError
from runtime.wire.fields import Message, Positive, Sha256, Words

MAX_LETTERS = 256
MAX_NAMES_BYTES = 48_000
"""The names of all classes together, as JSON: they travel in one control message."""
_NUM_SHOWN = 8


def as_class_name(text: str, *, where: str) -> str:
    """Bring text to a class's name; SettingsError for what nobody could read or send."""
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name:
        raise SettingsError(f"{where} is empty; the name of a class has a letter at least")
    if not name.isprintable():
        raise SettingsError(f"{where} is {text!a}; the name of a class is printable text")
    if len(name) > MAX_LETTERS:
        raise SettingsError(
            f"{where} has {len(name)} letters ({name[:20]}…); the name of a class has "
            f"{MAX_LETTERS} at most"
        )
    return name


def in_words(names: Sequence[str]) -> str:
    """List names, the first of many."""
    more = f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else ""
    return ", ".join(names[:_NUM_SHOWN]) + more


def check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """ValueError for names that are not distinct, or more than a message has room for."""
    if len(set(names)) < len(names):
        raise ValueError("a class is named twice")
    if (num_bytes := len(json.dumps(names))) > MAX_NAMES_BYTES:
        raise ValueError(
            f"the names of {len(names)} classes take {num_bytes} bytes, and at most "
            f"{MAX_NAMES_BYTES} travel; take shorter ones, or numbers as labels"
        )
    return names


ClassNames = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=MAX_LETTERS)], ...],
    AfterValidator(check_names),
]
"""In the order of the network's outputs."""


class FeatureNames(Message):
    """All names in their order, by a digest: a table may have more than a message has room for."""

    count: Positive
    digest: Sha256 = Field(description="of the names in their order, as a JSON list")
    words: Words = Field(description="the first of them")

    @classmethod
    def of(cls, names: Sequence[str]) -> "FeatureNames":
        """Take these names, at least one."""
        digest = hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()
        return cls(count=len(names), digest=digest, words=in_words(names))


def why_other_features(own: FeatureNames | None, others: FeatureNames | None, *, of: str) -> str:
    """Say that inputs have other names than those `of` others; nothing where either has none."""
    if own is None or others is None or own.digest == others.digest:
        return ""
    return (
        f"the names of its {own.count} features are {own.words}, those of {of} ({others.count}) "
        f"{others.words}; list the same ones in the same order, as by features=A,B"
    )
