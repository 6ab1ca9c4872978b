"""Inputs that are not held as one array: made, or read, when a mini-batch of them is drawn."""

import logging
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from runtime.errors import SettingsError
from runtime.seeding import Key

Indices = NDArray[np.int64]
Inputs = TypeVar("Inputs")
Item = TypeVar("Item")

SAY_EVERY_S = 2.0
"""While samples are read that take long."""
NUM_NAMED = 3
"""Samples that are named one by one; of more, they are counted."""
MOST_UNUSABLE, MOST_UNUSABLE_PART = 10, 0.1
"""So many samples, or this part of those that were tried, may be unusable, whichever is more."""

log = logging.getLogger(__name__)

_ONE_AT_A_TIME = Lock()
"""Whoever seeds the global generators is alone with them."""


class Stored(Protocol):
    """Inputs [sample, *shape], as numpy's arrays have them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of them, the number of samples first."""
        ...

    @property
    def dtype(self) -> Any:  # noqa: ANN401 - numpy's
        """Of what is drawn."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, chosen: Any, /) -> Any: ...  # noqa: ANN401 - as arrays have it


@runtime_checkable
class Drawn(Protocol):
    """Inputs that may differ from one draw to the next."""

    def draw(self, chosen: Indices, key: Key) -> NDArray[Any]:
        """Give these samples as this address has them."""
        ...


@dataclass(frozen=True, eq=False)
class Picked:
    """Some samples of others, without a copy."""

    base: Stored
    rows: Indices

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of them."""
        return (len(self.rows), *self.base.shape[1:])

    @property
    def dtype(self) -> Any:  # noqa: ANN401 - numpy's
        """Of what is drawn."""
        return self.base.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Indices | slice) -> NDArray[Any]:
        return np.asarray(self.base[self.rows[chosen]])

    def draw(self, chosen: Indices, key: Key) -> NDArray[Any]:
        """Give these samples as this address has them."""
        rows = self.rows[chosen]
        return self.base.draw(rows, key) if isinstance(self.base, Drawn) else self[chosen]


def first_of(stored: Stored, num_samples: int) -> Stored:
    """Give the first so many samples without a copy: where data grow it is done again and again."""
    if isinstance(stored, np.ndarray):
        first: Stored = stored[:num_samples]
        return first
    if isinstance(stored, Picked):
        return Picked(stored.base, stored.rows[:num_samples])
    return Picked(stored, np.arange(num_samples))


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows over readings [reading, feature]: [window, reading, feature], or channels first."""

    readings: NDArray[np.float32]
    starts: Indices
    length: int
    channels_first: bool

    @cached_property
    def _views(self) -> NDArray[np.float32]:
        views = sliding_window_view(self.readings, self.length, axis=0)
        return views if self.channels_first else views.transpose(0, 2, 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of them."""
        return (len(self.starts), *self._views.shape[1:])

    @property
    def dtype(self) -> Any:  # noqa: ANN401 - numpy's
        """Of the readings."""
        return self.readings.dtype

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, chosen: Indices | slice) -> NDArray[np.float32]:
        return self._views[self.starts[chosen]]


class UnusableSampleError(SettingsError):
    """Some of the samples that are drawn cannot be used: others may stand in for them."""

    def __init__(self, why: str, places: Sequence[int]) -> None:
        super().__init__(why)
        self.places = places
        """Of all of them, among those that are drawn."""


class Unusable:
    """Samples that cannot be used: named and counted, until they are too many for an oversight."""

    def __init__(self) -> None:
        self._seen = set[int]()
        self._unusable = set[int]()

    def note(self, index: int) -> None:
        """Take note of one that is tried."""
        self._seen.add(index)

    def leave_out(self, index: int, why: str) -> None:
        """Say the first few, and then how many there are; SettingsError if they are too many."""
        if index in self._unusable:
            return
        self._unusable.add(index)
        count, tried = len(self._unusable), len(self._seen)
        if count > max(MOST_UNUSABLE, MOST_UNUSABLE_PART * tried):
            raise SettingsError(f"{count} of {tried} samples cannot be used, the last: {why}")
        if count <= NUM_NAMED:
            log.warning("%s; it is left out", why)
        elif count.bit_count() == 1:  # 4, 8, 16, …
            log.warning("%d samples that cannot be used are left out, the last: %s", count, why)


@dataclass(frozen=True, eq=False)
class Items:
    """Inputs that a function of an index gives, perhaps at random: a data set of the user's own.

    What it draws from the generators of Python, numpy and torch follows from the address alone, so
    a rerun and a resumed run see the same.
    """

    read: Callable[[int], NDArray[Any]]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    unusable: Unusable = field(default_factory=Unusable)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: Indices | slice) -> NDArray[Any]:
        return self.draw(np.arange(len(self))[chosen], ())

    def draw(self, chosen: Indices, key: Key) -> NDArray[Any]:
        """Give these samples as this address has them."""
        drawn = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        errors: dict[int, SettingsError] = {}
        for place, index in enumerate(chosen.tolist()):
            self.unusable.note(index)
            try:
                with seeded((*key, index)):
                    drawn[place] = self._checked(index)
            except SettingsError as error:
                self.unusable.leave_out(index, str(error))
                errors[place] = error
        if errors:
            first = next(iter(errors.values()))
            raise UnusableSampleError(str(first), [*errors]) from first
        return drawn

    def _checked(self, index: int) -> NDArray[Any]:
        item = self.read(index)
        if item.shape != self.shape[1:]:
            raise SettingsError(
                f"sample {index} has the shape {item.shape}, others have {self.shape[1:]}; bring "
                "all to one, as by a transform"
            )
        if (item.dtype == np.uint8) != (self.dtype == np.uint8) or not np.isfinite(item).all():
            what = item.dtype if np.isfinite(item).all() else "numbers that are not finite"
            raise SettingsError(
                f"sample {index} has {what}, others have {self.dtype}; bring all to one kind"
            )
        return item


def usable(
    read: Callable[[Indices], Inputs], chosen: Indices, among: Indices
) -> tuple[Inputs, Indices]:
    """Read as many samples, and say which: what follows stands in for one that cannot be used."""
    rows, passed = np.array(chosen), set[int]()
    while True:
        try:
            return read(rows), rows
        except UnusableSampleError as error:
            passed.update(rows[error.places].tolist())
            for place in error.places:
                at = int(np.flatnonzero(among == rows[place])[0])
                following = np.roll(among, -at - 1)[:-1].tolist()
                free = [row for row in following if row not in passed]
                if not free:
                    raise
                rows[place] = next((row for row in free if row not in rows), free[0])


def without_unusable(read: Callable[[Indices], Inputs], chosen: Indices) -> tuple[Inputs, Indices]:
    """Read those of these samples that can be used, and say which they are."""
    rows = chosen
    while True:
        try:
            return read(rows), rows
        except UnusableSampleError as error:
            rows = np.delete(rows, error.places)


def said(items: Iterable[Item], *, where: str) -> Iterator[Item]:
    """Go through items, and say how many there were where it takes long."""
    say_at_s = time.monotonic() + SAY_EVERY_S
    for count, item in enumerate(items):
        yield item
        if time.monotonic() >= say_at_s:
            log.warning("reading %s: %d samples so far", where, count + 1)
            say_at_s = time.monotonic() + SAY_EVERY_S


@contextmanager
def seeded(key: Key) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch; they are afterwards as before."""
    seed = int(np.random.SeedSequence((len(key), *key)).generate_state(1)[0])
    with _ONE_AT_A_TIME, _torch_seeded(seed):
        before = random.getstate(), np.random.get_state()  # noqa: NPY002 - what transforms use
        try:
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002


def _torch_seeded(seed: int) -> AbstractContextManager[None]:
    if "torch" not in sys.modules:
        return nullcontext()
    from runtime.seeding.torch_generator import forked_generator  # noqa: PLC0415 - torch may be missing

    return forked_generator(seed)
