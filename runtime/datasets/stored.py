"""Inputs that are not held as one array: made, or read, when a mini-batch of them is drawn."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from runtime.errors import SettingsError
from runtime.seeding import Key

Indices = NDArray[np.int64]

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


@dataclass(frozen=True, eq=False)
class Items:
    """Inputs that a function of an index gives, perhaps at random: a data set of the user's own.

    What it draws from the generators of Python, numpy and torch follows from the address alone, so
    a rerun and a resumed run see the same.
    """

    read: Callable[[int], NDArray[Any]]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: Indices | slice) -> NDArray[Any]:
        return self.draw(np.arange(len(self))[chosen], ())

    def draw(self, chosen: Indices, key: Key) -> NDArray[Any]:
        """Give these samples as this address has them."""
        drawn = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        for place, index in enumerate(chosen.tolist()):
            with seeded((*key, index)):
                item = self.read(index)
            if item.shape != self.shape[1:]:
                raise SettingsError(
                    f"sample {index} has the shape {item.shape}, sample 0 has {self.shape[1:]}; "
                    "bring all to one, as by a transform"
                )
            if (item.dtype == np.uint8) != (self.dtype == np.uint8) or not np.isfinite(item).all():
                what = item.dtype if np.isfinite(item).all() else "numbers that are not finite"
                raise SettingsError(
                    f"sample {index} has {what}, sample 0 has {self.dtype}; bring all to one kind"
                )
            drawn[place] = item
        return drawn


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
