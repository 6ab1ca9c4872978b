"""Measuring step by step: the thread that computes does its other work between the steps.

Devices of one process are one machine: what one of them has measured holds for all that would
measure the same. So whoever needs it first measures, and the others wait for what it finds.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator, Hashable
from concurrent.futures import Executor as ThreadPool
from dataclasses import dataclass, field
from math import inf
from typing import Any, Generic, TypeVar

from device_agent.engines.compute_timings import ComputeTimings
from runtime.wire.chunks.transfer import SharedLine

MAX_KEPT = 64
"""Findings of so many measurements stay."""

Found = TypeVar("Found")

Timing = Generator[float, None, Found]
"""Takes a step each time it is asked; yields the seconds to rest before the next one."""


@dataclass(frozen=True)
class Measurement(Generic[Found]):
    """What to time, and what it comes to on one device."""

    key: Hashable
    """Equal where the same would be found on this machine."""
    take: Callable[[], Timing[Found]]
    read: Callable[[Found], ComputeTimings | None]


class UnwantedError(Exception):
    """Nobody needs to know any more."""


def complete(timing: Timing[Found], sleep: Callable[[float], None] = time.sleep) -> Found:
    """Take all steps of a measurement here and now."""
    while True:
        step = _advance(timing)
        if step.is_last:
            found: Found = step.found
            return found
        sleep(step.rest_s)


async def take_between(
    timing: Timing[Found], compute: ThreadPool, *, is_wanted: Callable[[], bool]
) -> Found:
    """Take each step when the thread is free; UnwantedError once it is for nothing."""
    loop = asyncio.get_running_loop()
    while True:
        if not is_wanted():
            raise UnwantedError
        step = await loop.run_in_executor(compute, _advance, timing)
        if step.is_last:
            found: Found = step.found
            return found
        if step.rest_s:
            await asyncio.sleep(step.rest_s)


@dataclass(frozen=True)
class _Step:
    rest_s: float = 0.0
    is_last: bool = False
    found: Any = None


def _advance(timing: Timing[Found]) -> _Step:
    try:
        return _Step(rest_s=next(timing))
    except StopIteration as finished:  # It could not leave a thread as it is.
        return _Step(is_last=True, found=finished.value)


class SharedFindings:
    """What the devices of one process have found, by what it is a finding of."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[Hashable, _Finding] = OrderedDict()
        self._line = SharedLine()

    def line_of(self, link_class: Hashable) -> SharedLine:
        """Give the line of all devices of the process; of one that emulates its link, its own."""
        return self._line if link_class is None else SharedLine()

    def has(self, key: Hashable) -> bool:
        """Whether this has been found."""
        return key in self._kept and self._kept[key].found_at_s is not None

    async def once(
        self, key: Hashable, find: Callable[[], Awaitable[Found]], *, max_age_s: float = inf
    ) -> Found:
        """Give what was found not too long ago, or find it; one at a time.

        Who fails has failed alone: the next one that waits tries itself.
        """
        finding = self._kept.setdefault(key, _Finding())
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        async with finding.turn:
            found_at_s = finding.found_at_s
            if found_at_s is None or self._clock() - found_at_s > max_age_s:
                finding.what = await find()
                finding.found_at_s = self._clock()
            found: Found = finding.what
            return found


@dataclass
class _Finding:
    what: Any = None
    found_at_s: float | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
